"""The SimCSE recipe: its loss and metric against reference numbers, its two tiers, and an encoder blind to padding."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from todm import SearchSpace, activate, dropout, extract
from todm.recipes.simcse_sts.losses import cosine_loss, rank_correlation, simcse_loss
from todm.recipes.simcse_sts.sentences import STSB
from todm.recipes.simcse_sts.task import Batch, Encoder, SentenceData, SimCSETask
from todm.recipes.simcse_sts.weigh import main, turned
from todm.recipes.transformer import TransformerConfig

GOLDEN = Path(__file__).parents[1] / "data" / "simcse.npz"
SIZES = TransformerConfig(width=[16, 32], depth=[1, 2], heads=[1, 2], head_size=8, hidden=[32, 64])
STRONG = {site: {"method": "standard", "rate": 0.3} for site in ("embedding", "attention", "feed_forward", "residual")}


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> SimCSETask:
    if not Path(os.environ.get("TODM_DATA", ""), "stsb").is_dir() or "TODM_DATA" not in os.environ:
        pytest.skip("needs STS-B: set TODM_DATA to a folder that holds stsb/")
    data = SentenceData(vocabulary=600, batch=8, unsupervised=3)
    return SimCSETask(data, SIZES, 0, tmp_path_factory.mktemp("cache"))


def test_loss_and_gradient_are_those_of_the_reference():
    golden = np.load(GOLDEN, allow_pickle=False)
    first, second = (torch.tensor(golden[f"simcse.z{i}"], dtype=torch.float64, requires_grad=True) for i in (1, 2))
    loss = simcse_loss(first, second, float(golden["simcse.temperature"]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(golden["simcse.unsup_loss"]), abs=1e-12)
    for z, i in ((first, 1), (second, 2)):
        assert torch.allclose(z.grad, torch.tensor(golden[f"simcse.unsup_grad_z{i}"]), atol=1e-12, rtol=0)


def test_rank_correlation_shares_ranks_between_ties():
    golden = np.load(GOLDEN, allow_pickle=False)
    a, b = (torch.tensor(golden[f"spearman.{name}"]) for name in "ab")
    assert rank_correlation(a, b) == pytest.approx(float(golden["spearman.rho"]), abs=1e-12)
    assert rank_correlation(a, a.exp()) == pytest.approx(1.0)


def test_the_supervised_loss_is_zero_where_the_cosine_is_the_target():
    first, second = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    assert cosine_loss(first, second, torch.tensor([0.0, 1.0])) == 0
    assert cosine_loss(first, second, torch.tensor([1.0, 1.0])) == 0.5


def test_padding_changes_no_embedding():
    torch.manual_seed(0)
    encoder = Encoder(SIZES, 50, 12).eval()
    short = torch.randint(1, 50, (4, 7))
    padded = torch.cat([short, torch.zeros(4, 5, dtype=torch.int64)], 1)
    assert torch.allclose(encoder(short), encoder(padded), atol=1e-6)


def test_an_extracted_encoder_is_the_supernets():
    torch.manual_seed(0)
    encoder = Encoder(SIZES, 50, 12)
    dropout.install(encoder, STRONG)
    encoder.eval()
    rows = torch.randint(0, 50, (4, 12)) * (torch.arange(12) < 9)
    space = SearchSpace.of(encoder)
    for arch in (space.smallest(), space.largest() | {"width": 16, "depth": 1}):
        activate(encoder, arch)
        assert torch.allclose(extract(encoder, arch).eval()(rows), encoder(rows), atol=1e-6)


def test_the_first_tier_is_sentences_and_the_second_pairs(task):
    batches = task.train_batches(1)
    two = [next(batches) for _ in range(2)]
    assert [batch.second is None for batch in two] == [True, True]
    pairs = next(batches)
    assert pairs.second is not None and len(pairs.scores) == 8
    assert float(pairs.scores.min()) >= 0 and float(pairs.scores.max()) <= 1
    again = next(task.train_batches(3))
    assert torch.equal(again.first, pairs.first) and torch.equal(again.scores, pairs.scores)


def test_one_mask_makes_the_two_views_the_same(task):
    model = task.build()
    dropout.install(model, STRONG)
    batch = next(task.train_batches(0))
    assert isinstance(batch, Batch)
    two = task.loss(model.train(), batch).logits.diagonal() * task.data.temperature
    assert float(two.max()) < 0.999
    control = SimCSETask.__new__(SimCSETask)
    control.data = SentenceData(views="one mask")

    def similarity(batch: Batch) -> torch.Tensor:
        return control.loss(model.train(), batch).logits.diagonal() * control.data.temperature

    one = similarity(batch)
    assert torch.allclose(one, torch.ones(8), atol=1e-5)
    # In the second tier as well: a pair of equal sentences has equal embeddings, and other numbers come after them.
    assert torch.allclose(similarity(Batch(batch.first, batch.first, torch.ones(8))), torch.ones(8), atol=1e-5)
    before = torch.rand(1)
    similarity(batch)
    assert torch.rand(1) != before


def test_how_far_a_missing_subword_turns_an_embedding(capsys):
    weights = torch.tensor([0.0, 1.0, 2.0, 3.0, 0.5, 1.5, 2.5, 4.0])
    directions = torch.diag(weights)
    rows = torch.tensor([[1, 2, 3, 4, 5, 6, 0], [1, 2, 3, 0, 0, 0, 0]])  # the second one is too short
    turns, symbols = turned(lambda rows: directions[rows].sum(1), rows)
    assert symbols.tolist() == [1, 2, 3, 4, 5, 6]
    whole = (weights[1:7] ** 2).sum()
    assert torch.allclose(turns, 1 - (1 - weights[symbols] ** 2 / whole).sqrt(), atol=1e-6)
    assert main(["nowhere", "tier 1: none"]) == 2
    assert "nowhere holds no row 'tier 1: none'" in capsys.readouterr().err


def test_a_perfect_encoder_lacks_nothing(task):
    angles = torch.acos(task.pairs["dev"].scores / 5)
    first, second = torch.tensor([1.0, 0.0]).expand(len(angles), 2), torch.stack([angles.cos(), angles.sin()], 1)
    metrics = task.metrics(torch.stack([first, second], 1).flatten(0, 1), "dev")
    assert next(iter(metrics)) == "shortfall" and metrics["shortfall"] == pytest.approx(0, abs=1e-3)
    assert metrics["spearman"] == pytest.approx(100, abs=1e-3)


def test_samples_are_the_pairs_by_turns(task):
    rows, pairs = task.samples("test")["symbols"], task.pairs["test"]
    assert len(rows) == 2 * 1379
    read = [task.subwords._processor.decode(row[row != 0].tolist()) for row in rows[:2]]
    assert read == [pairs.first[0].lower(), pairs.second[0].lower()]


def test_the_pinned_data_are_named(task):
    assert set(STSB.files.items()) <= set(task.provenance().items())
