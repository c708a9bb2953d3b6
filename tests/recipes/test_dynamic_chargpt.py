"""The character GPT: how the text is cut, what its loss means, and that its dropout leaves no trace in what is run."""

import hashlib
import math

import pytest
import torch

from todm import dropout, extract
from todm.cli import main
from todm.errors import TodmError
from todm.fetch import Source
from todm.recipes.dynamic_chargpt import task as recipe
from todm.recipes.dynamic_chargpt.task import CharGPTTask, TextData
from todm.recipes.transformer import TransformerConfig

SIZES = TransformerConfig(width=[16, 32], depth=[1, 2], heads=[1, 2], head_size=8, hidden=[32, 64])
TEXT = "abcdefghij" * 60


@pytest.fixture
def make(tmp_path, monkeypatch):
    (tmp_path / "input.txt").write_text(TEXT)
    digest = hashlib.sha256(TEXT.encode()).hexdigest()
    monkeypatch.setattr(recipe, "SHAKESPEARE", Source("play", tmp_path.as_uri(), {"input.txt": digest}))
    monkeypatch.delenv("TODM_DATA", raising=False)

    def made(**options) -> CharGPTTask:
        data = TextData(**{"characters": 400, "held_out": 97, "context": 16, "batch": 4} | options)
        return CharGPTTask(data, SIZES, 0, tmp_path / "cache")

    return made


def test_every_held_out_character_is_predicted_once(make):
    task = make()
    for split, start in (("dev", 600 - 2 * 97), ("test", 600 - 97)):
        targets = task.windows[split][:, 1:].flatten().tolist()
        assert "".join(task.symbols[i] for i in targets) == TEXT[start + 1 : start + 97]


def test_no_held_out_character_is_trained_on(make):
    with pytest.raises(TodmError, match="lower either"):
        make(characters=407)
    assert make(characters=406).train.shape == (406,)


def test_a_batch_is_a_function_of_seed_and_index(make):
    task = make()
    batches = task.train_batches(0)
    first, second = next(batches), next(batches)
    assert first.shape == (4, 17) and not torch.equal(first, second)
    assert torch.equal(next(task.train_batches(1)), second)


def test_a_character_is_predicted_from_what_came_before(make):
    model = make().build().eval()
    symbols = torch.randint(0, 10, (1, 16))
    changed = symbols.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 10
    before, after = model(symbols), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9], after[:, 9])


def test_knowing_nothing_costs_the_logarithm_of_the_alphabet(make):
    task = make()
    logits = torch.zeros(len(task.windows["dev"]), 16, 10)
    assert task.metrics(logits, "dev")["loss"] == pytest.approx(math.log(10))
    output = task.loss(task.build(), next(task.train_batches(0)))
    assert float(output.weight.sum()) == pytest.approx(1)
    assert output.logits.shape == (4, 16, 10)


def test_whatever_the_dropout_the_deployed_net_runs_the_same_operations(make):
    graphs = []
    for rate in (None, 0.2, {"schedule": "on_validation", "start": 0.2}):
        model = make().build()
        if rate is not None:
            places = ("embedding", "attention", "feed_forward", "residual")
            dropout.install(model, {place: {"method": "standard", "rate": rate} for place in places})
        method = (
            make()
            .program(extract(model, {"width": 32, "depth": 2, "heads0": 2, "heads1": 2, "hidden0": 64, "hidden1": 64}))
            .methods[0]
        )
        exported = torch.export.export(method.module, tuple(method.inputs.values()))
        graphs.append([str(node.target) for node in exported.graph.nodes])
    assert graphs[0] == graphs[1] == graphs[2]


def test_rows_are_trained_and_tested_by_the_command(make, tmp_path, monkeypatch):
    make()  # puts the small text in place
    monkeypatch.setenv("TODM_CACHE", str(tmp_path / "cache"))
    command = ["compare", "dynamic_chargpt", "--out", str(tmp_path / "out"), "--quick", "--seeds", "1", "--rows"]
    sizes = ["--data.characters", "400", "--data.held_out", "97", "--data.context", "16"]
    assert main([*command, "none,on validation", *sizes]) == 0
    assert "| on validation |" in (tmp_path / "out" / "table.md").read_text()
