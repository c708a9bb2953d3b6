"""The pruned loss: the exact one where the band is full, its bounds by brute force, its smoothing by its formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from todm.speech import pruned_rnnt_loss, rnnt_loss
from todm.speech.lattice import lattice_arcs
from todm.speech.pruned_loss import band_rows, simple_arcs


class Case:
    """Random encoder and predictor outputs, joiners, targets and lengths, in float64."""

    def __init__(self, seed: int, batch: int = 3, time: int = 9, labels: int = 6, scale: float = 1.0) -> None:
        torch.manual_seed(seed)
        size, vocabulary = 5, 7
        self.joiner = nn.Sequential(nn.Tanh(), nn.Linear(size, vocabulary)).double()
        self.simple = nn.ModuleDict({n: nn.Linear(size, vocabulary).double() for n in ("encoder", "predictor")})
        self.encoded = (scale * torch.randn(batch, time, size, dtype=torch.float64)).requires_grad_()
        self.predicted = (scale * torch.randn(batch, labels + 1, size, dtype=torch.float64)).requires_grad_()
        self.targets = torch.randint(1, vocabulary, (batch, labels))
        self.frames = torch.randint(1, time + 1, (batch,))
        self.labels = torch.randint(0, labels + 1, (batch,))

    def pruned(self, band: int, **scales: float) -> tuple[Tensor, Tensor]:
        return pruned_rnnt_loss(
            self.encoded, self.predicted, self.joiner, self.targets, self.frames, self.labels, band=band,
            simple_encoder=self.simple["encoder"], simple_predictor=self.simple["predictor"], **scales,
        )  # fmt: skip

    def exact(self) -> Tensor:
        logits = self.joiner(self.encoded[:, :, None] + self.predicted[:, None])
        return rnnt_loss(logits, self.targets, self.frames, self.labels)

    def leaves(self) -> list[Tensor]:
        return [self.encoded, self.predicted, *self.joiner.parameters()]


sizes = {
    "seed": st.integers(0, 999), "batch": st.integers(1, 4), "time": st.integers(1, 9), "labels": st.integers(0, 6),
    "scale": st.sampled_from([0.1, 1.0, 5.0]),
}  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(**sizes)
def test_a_full_band_is_the_exact_loss_with_its_gradients(
    seed: int, batch: int, time: int, labels: int, scale: float
) -> None:
    case = Case(seed, batch, time, labels, scale)
    weight = torch.rand(batch, dtype=torch.float64)
    pruned, exact = case.pruned(max(2, labels + 1))[1], case.exact()
    torch.testing.assert_close(pruned, exact, rtol=1e-12, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad((weight * pruned).sum(), case.leaves()),
        torch.autograd.grad((weight * exact).sum(), case.leaves()),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(band=st.integers(2, 6), **sizes)
def test_a_narrow_band_leaves_paths_out_and_is_infinite_only_where_none_is_left(
    seed: int, batch: int, time: int, labels: int, scale: float, band: int
) -> None:
    case = Case(seed, batch, time, labels, scale)
    pruned, exact = case.pruned(band)[1], case.exact()
    assert (pruned >= exact - 1e-12).all()
    assert torch.equal(pruned.isfinite(), case.labels <= (band - 1) * case.frames)
    for grad in torch.autograd.grad(pruned.sum(), case.leaves()):
        assert grad.isfinite().all()


@settings(max_examples=40, deadline=None)
@given(band=st.integers(2, 6), **sizes)
def test_the_band_lets_paths_through(seed: int, batch: int, time: int, labels: int, scale: float, band: int) -> None:
    case = Case(seed, batch, time, labels, scale)
    generator = torch.Generator().manual_seed(seed)
    band, occupied = min(band, labels + 1), torch.rand(batch, time, labels + 1, 2, generator=generator)
    rows = band_rows(occupied, case.frames, case.labels, band)
    first = rows[..., 0]
    assert torch.equal(rows, first[..., None] + torch.arange(band))
    assert (first[:, 0] == 0).all()
    assert first.min() >= 0
    assert rows.max() <= labels
    steps = first.diff(dim=1)
    assert ((steps >= 0) & (steps <= max(0, band - 1))).all()
    for n, (t, u) in enumerate(zip(case.frames.tolist(), case.labels.tolist(), strict=True)):
        if u <= (band - 1) * t:
            assert first[n, t - 1] == max(0, u + 1 - band)


def test_the_band_keeps_the_most_of_what_the_simple_joiner_passes() -> None:
    """Where no step has to be mended, each frame's rows win equation 10 against all others."""
    frames, labels = torch.tensor([40]), torch.tensor([8])
    scores = torch.zeros(1, 40, 9, 2, dtype=torch.float64)
    for t in range(40):  # a label every five frames
        scores[0, t, :, 0] = -9.0
        scores[0, t, :, 1] = -0.5
        scores[0, t, t // 5, 0] = -0.1 if t % 5 == 4 else -9.0
    scores[:, :, 8, 0] = -math.inf
    _, arcs = lattice_arcs(scores, frames, labels)
    first = band_rows(arcs, frames, labels, 4)[0, :, 0].tolist()
    for t in range(39):
        value = [float(arcs[0, t, p : p + 4, 1].sum() - (arcs[0, t, p - 1, 0] if p else 0)) for p in range(9 - 4 + 1)]
        assert value[first[t]] == pytest.approx(max(value), abs=1e-6)
    assert arcs[0, :, :, 1].gather(1, torch.tensor(first)[:, None] + torch.arange(4)).sum() > 39.9


@pytest.mark.parametrize(("lm", "am"), [(0.0, 0.0), (0.25, 0.0), (0.0, 0.3), (0.25, 0.1)])
def test_the_simple_joiner_is_smoothed_by_its_formulas(lm: float, am: float) -> None:
    torch.manual_seed(0)
    e, p = 3 * torch.randn(1, 4, 6, dtype=torch.float64), 3 * torch.randn(1, 3, 6, dtype=torch.float64)
    labels = torch.tensor([[2, 5, 0]])
    arcs = simple_arcs(e, p, labels, 0, lm, am)
    average = p[0].softmax(-1).mean(0).log()
    for t in range(4):
        for u in range(3):
            both = (e[0, t] + p[0, u]).log_softmax(-1)
            mixed = (1 - lm - am) * both + lm * p[0, u].log_softmax(-1) + am * (e[0, t] + average).log_softmax(-1)
            torch.testing.assert_close(arcs[0, t, u, 1], mixed[0])
            if u < 2:
                torch.testing.assert_close(arcs[0, t, u, 0], mixed[labels[0, u]])
    assert (arcs[0, :, 2, 0] == -math.inf).all()


def test_the_average_counts_only_the_rows_of_the_utterance() -> None:
    torch.manual_seed(0)
    e, p = torch.randn(1, 4, 6, dtype=torch.float64), torch.randn(1, 5, 6, dtype=torch.float64)
    labels = torch.tensor([[2, 5, 0, 0, 0]])
    alone = simple_arcs(e, p[:, :3], labels[:, :3], 0, 0.1, 0.2)
    torch.testing.assert_close(simple_arcs(e, p, labels, 0, 0.1, 0.2)[:, :, :3], alone)


def test_the_simple_loss_is_that_of_the_summed_logits_and_teaches_its_maps() -> None:
    case = Case(1)
    simple, _ = case.pruned(3, lm_scale=0.0)
    logits = case.simple["encoder"](case.encoded)[:, :, None] + case.simple["predictor"](case.predicted)[:, None]
    expected = rnnt_loss(logits, case.targets, case.frames, case.labels)
    torch.testing.assert_close(simple, expected)
    leaves = [case.encoded, case.predicted, *case.simple.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(simple.sum(), leaves), torch.autograd.grad(expected.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_an_utterance_does_not_depend_on_its_batch() -> None:
    case = Case(2)
    together = case.pruned(3, am_scale=0.1)
    for n in range(3):
        t, u = int(case.frames[n]), int(case.labels[n])
        alone = pruned_rnnt_loss(
            case.encoded[n : n + 1, :t], case.predicted[n : n + 1, : u + 1], case.joiner, case.targets[n : n + 1, :u],
            case.frames[n : n + 1], case.labels[n : n + 1], band=3, am_scale=0.1,
            simple_encoder=case.simple["encoder"], simple_predictor=case.simple["predictor"],
        )  # fmt: skip
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a[0], b[n])


def test_autocast_keeps_both_losses_in_float32() -> None:
    case = Case(3)
    for module in (case.joiner, case.simple):
        module.float()
    case.encoded, case.predicted = case.encoded.float(), case.predicted.float()
    plain = case.pruned(3)
    with torch.autocast("cpu", torch.bfloat16):
        half = case.pruned(3)
    for a, b in zip(half, plain, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


def test_wrong_arguments_are_named() -> None:
    case = Case(4)
    with pytest.raises(ValueError, match="band must be 2 or more"):
        case.pruned(1)
    case.frames = case.frames + 9
    with pytest.raises(ValueError, match="encoder_lengths must lie between 1 and 9"):
        case.pruned(3)
