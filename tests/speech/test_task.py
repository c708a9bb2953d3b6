"""The task of a recogniser: its loss, its words, and the statistics it starts with."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from todm import SearchSpace, activate
from todm.distributed import WHOLE, Shard
from todm.speech.batches import evaluation_batches, train_batches
from todm.speech.collapse import collapse
from todm.speech.delay import penalise_delay
from todm.speech.encoder import subsampled
from todm.speech.lattice import lattice_arcs
from todm.speech.single import single_arcs


def test_training_overfits_a_handful_of_utterances(task, trained):
    model, losses = trained
    assert sum(losses[-10:]) < 0.1 * sum(losses[:10])
    for arch in (SearchSpace.of(model).smallest(), SearchSpace.of(model).largest()):
        activate(model, arch)
        assert task.evaluate(model, "dev") == {"wer": 0.0}
    torch.manual_seed(0)
    assert task.evaluate(task.build().eval(), "dev")["wer"] > 50


def test_build_takes_the_statistics_of_the_training_set(task, trained):
    model = task.build()
    batches = list(evaluation_batches(task.corpus.cuts["train"], task.corpus.tokens))
    frames = torch.cat([x[: n - 50] for b in batches for x, n in zip(b.features, b.feature_lengths, strict=True)])
    assert torch.allclose(model.encoder.feature_mean, frames.mean(0), atol=0.3)
    assert torch.allclose(model.encoder.feature_scale, 1 / frames.std(0), rtol=0.3)
    assert model.encoder.feature_mean.std() > 0.1


@pytest.mark.parametrize("alignments", ["all", "single"])
def test_the_loss_is_that_of_transducer_and_ctc_per_symbol(task, trained, monkeypatch, alignments):
    model, _ = trained
    monkeypatch.setattr(task, "config", replace(task.config, alignments=alignments))
    activate(model, SearchSpace.of(model).largest())
    batch = next(task.train_batches(3))
    output = task.loss(model, batch)
    encoded, lengths = model.encoder(batch.features), subsampled(batch.feature_lengths)
    tokens, labels = batch.tokens, batch.token_lengths
    collapsed = collapse(model.lattice(encoded, tokens), tokens, labels)
    transducer = (lattice_arcs if alignments == "all" else single_arcs)(collapsed, lengths, labels)[0].sum()
    ctc = torch.stack([
        torch.nn.functional.ctc_loss(
            model.ctc(x[:t]).log_softmax(-1)[:, None], y[:u][None], (int(t),), (int(u),), reduction="sum"
        )
        for x, t, y, u in zip(encoded, lengths, tokens, labels, strict=True)
    ]).sum()  # fmt: skip
    assert output.loss.item() == pytest.approx(((transducer + 0.5 * ctc) / labels.sum()).item(), rel=1e-4)
    # What is distilled: three classes a cell, weighted by how many paths pass: each through every frame, and, where a
    # label stays in its frame, through as many cells more as there are labels.
    assert output.logits.shape == (*encoded.shape[:2], tokens.shape[1] + 1, 3)
    assert output.weight.shape == output.logits.shape[:3]
    assert not output.weight.requires_grad
    cells = lengths + labels if alignments == "all" else lengths
    assert torch.allclose((output.weight * labels.sum()).sum((1, 2)), cells.double(), rtol=1e-4)
    whole = model.lattice(encoded, tokens).softmax(-1)
    assert torch.allclose(output.logits[..., 1].exp(), whole[..., 0].double(), atol=1e-5)
    # Its gradient reaches the encoder, as distillation needs.
    output.logits[..., 1].sum().backward()
    assert model.encoder.front_in.weight.grad.abs().sum() > 0
    model.zero_grad()


def test_the_price_of_late_symbols_changes_with_the_updates(task, trained, monkeypatch):
    model, _ = trained
    activate(model, SearchSpace.of(model).largest())
    late = next(task.train_batches(3))
    assert late.index == 3
    assert [batch.index for batch in islice(task.train_batches(0), 3)] == [0, 1, 2]
    encoded, lengths = model.encoder(late.features), subsampled(late.feature_lengths)
    collapsed = collapse(model.lattice(encoded, late.tokens), late.tokens, late.token_lengths)

    def rise(penalty: float) -> float:
        timed = penalise_delay(collapsed, lengths, penalty)
        losses = [single_arcs(lattice, lengths, late.token_lengths)[0].sum() for lattice in (timed, collapsed)]
        return ((losses[0] - losses[1]) / late.token_lengths.sum()).item()

    free = task.loss(model, late)
    monkeypatch.setattr(task, "config", replace(task.config, delay_penalty=(-0.5, 0.5), delay_updates=6))
    for index, penalty in ((0, -0.5), (3, 0.0), (6, 0.5), (60, 0.5)):
        priced = task.loss(model, replace(late, index=index))
        assert (priced.loss - free.loss).item() == pytest.approx(rise(penalty), abs=1e-5)
        assert torch.equal(priced.logits, free.logits)  # what is distilled is what the net says, not what it costs


def test_many_logits_are_not_kept_and_nothing_else_changes(task, trained, monkeypatch):
    model, _ = trained
    activate(model, SearchSpace.of(model).largest())
    batch = next(task.train_batches(3))
    model.zero_grad()
    results = []
    for few in (10**9, 0):
        monkeypatch.setattr("todm.speech.task.FEW_LOGITS", few)
        output = task.loss(model, batch)
        output.loss.backward()
        results.append((output.loss.detach(), output.weight, model.encoder.front_in.weight.grad.clone()))
        model.zero_grad()
    for kept, not_kept in zip(*results, strict=True):
        assert torch.allclose(kept, not_kept, rtol=1e-4, atol=1e-6)


def test_padding_does_not_count(task, trained):
    model, _ = trained
    (batch,) = evaluation_batches(task.corpus.cuts["train"], task.corpus.tokens)
    lengths = batch.feature_lengths // 4 * 4  # of the frames of a last, incomplete output some would be padding
    batch = replace(batch, feature_lengths=lengths)
    before = task.loss(model, batch)
    features = torch.nn.functional.pad(batch.features, (0, 0, 0, 9))
    for row, length in enumerate(lengths):
        features[row, length:] = 3.0
    tokens = torch.nn.functional.pad(batch.tokens, (0, 2), value=1)
    after = task.loss(model, replace(batch, features=features, tokens=tokens))
    assert after.loss.item() == pytest.approx(before.loss.item(), rel=1e-4)
    assert after.weight[:, before.weight.shape[1] :].abs().max() == 0
    assert after.weight[:, :, before.weight.shape[2] :].abs().max() == 0


def test_a_process_too_many_for_a_batch_adds_nothing(task):
    """The gradients of all processes, each by its share of the symbols, are the gradient of the batch."""
    model = task.build().eval()
    activate(model, SearchSpace.of(model).largest())
    corpus = task.corpus
    one = corpus.cuts["train"].subset(first=1)

    def gradient(batch):
        output = task.loss(model, batch)
        output.loss.backward()
        grad = model.encoder.front_in.weight.grad.clone()
        model.zero_grad()
        return output.count, grad

    def batch_of(shard):
        return next(train_batches(one, corpus.tokens, seconds_per_batch=60, seed=0, workers=0, shard=shard))

    count, whole = gradient(batch_of(WHOLE))
    batches = [batch_of(Shard(rank, 2)) for rank in range(2)]
    assert [batch.counted for batch in batches] == [True, False]
    parts = list(map(gradient, batches))
    assert sum(part for part, _ in parts) == count
    assert parts[1][0] == 0 and parts[1][1].abs().max() > 0
    together = sum(part / count * grad for part, grad in parts)
    assert torch.allclose(together, whole)
