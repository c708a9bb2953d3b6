"""The transducer loss against golden values and against every alignment counted one by one."""

import math
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from alignments import check_as_enumerated, total_and_occupancy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from todm.distill import divergence
from todm.errors import TodmError
from todm.speech.collapse import collapse
from todm.speech.compiled_loss import torchaudio_loss
from todm.speech.lattice import lattice_loss, rnnt_loss

GOLDEN = dict(np.load(Path(__file__).parents[1] / "data" / "rnnt_loss.npz", allow_pickle=False))
CASES = range(int(GOLDEN["n_cases"]))
DTYPES = [torch.float64, torch.float32]


def case(i: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logits, *rest = (
        torch.tensor(GOLDEN[f"case{i}.{key}"]) for key in ("logits", "targets", "logit_lengths", "target_lengths")
    )
    return logits.to(dtype).requires_grad_(), *rest  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("i", CASES)
def test_loss_and_gradient_are_the_golden_ones(i: int, dtype: torch.dtype) -> None:
    logits, *rest = case(i, dtype)
    loss = rnnt_loss(logits, *rest, blank=int(GOLDEN["blank"]))
    loss.sum().backward()
    double = dtype == torch.float64
    assert loss.dtype == dtype
    np.testing.assert_allclose(loss.detach(), GOLDEN[f"case{i}.loss"], rtol=1e-13 if double else 1e-6)
    np.testing.assert_allclose(logits.grad, GOLDEN[f"case{i}.grad"], rtol=0, atol=1e-12 if double else 1e-6)
    beyond = (np.arange(logits.shape[1])[:, None] >= rest[1].numpy()[:, None, None]) | (
        np.arange(logits.shape[2]) > rest[2].numpy()[:, None, None]
    )
    assert not logits.grad[torch.tensor(beyond)].any()  # type: ignore[index]


@pytest.mark.parametrize("dtype", DTYPES)
def test_collapse_occupancy_and_distillation_are_the_golden_ones(dtype: torch.dtype) -> None:
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    logits, targets, logit_lengths, target_lengths = case(1, dtype)
    collapsed = collapse(logits, targets, target_lengths)
    expected = GOLDEN["case1.collapsed_logp"]
    valid = np.isfinite(expected[..., 1])
    np.testing.assert_allclose(collapsed.detach().numpy()[valid], expected[valid], atol=tolerance)
    occupancy = GOLDEN["case1.occ_blank"] + np.pad(GOLDEN["case1.occ_label"], ((0, 0), (0, 0), (0, 1)))
    _, passing = lattice_loss(collapsed, logit_lengths, target_lengths)
    np.testing.assert_allclose(passing, occupancy, rtol=0, atol=tolerance)
    assert not passing.requires_grad
    np.testing.assert_allclose(passing.sum((1, 2)), (logit_lengths + target_lengths).to(dtype), rtol=1e-5)

    teacher = collapse(torch.tensor(GOLDEN["case1.teacher_logits"]).to(dtype), targets, target_lengths)
    kl = (divergence("kl")(collapsed, teacher) * torch.tensor(valid)).sum((1, 2))
    kl.sum().backward()
    np.testing.assert_allclose(kl.detach(), GOLDEN["case1.collapsed_kl"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(logits.grad, GOLDEN["case1.collapsed_kl_grad"], rtol=0, atol=tolerance)


def by_enumeration(logits: Tensor, targets: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Loss and occupancy of one utterance, logits (time, labels + 1, vocabulary), from every alignment."""
    log_p, time, labels = logits.log_softmax(-1), logits.shape[0], len(targets)
    scores, passes = [], []
    # The last arc is the last frame's blank; the labels take any of the places before it.
    for places in combinations(range(time - 1 + labels), labels):
        t = u = 0
        score, passed = logits.new_zeros(()), torch.zeros(time, labels + 1)
        for place in range(time + labels):
            passed[t, u] = 1
            if place in places:
                score, u = score + log_p[t, u, targets[u]], u + 1
            else:
                score, t = score + log_p[t, u, blank], t + 1
        scores.append(score)
        passes.append(passed)
    return total_and_occupancy(scores, passes)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_alignment_is_counted_once(data: st.DataObject) -> None:
    time, labels, vocabulary = (data.draw(st.integers(*bounds)) for bounds in ((1, 4), (0, 3), (2, 4)))
    batch, blank = data.draw(st.integers(1, 3)), data.draw(st.integers(0, vocabulary - 1))
    scale = data.draw(st.sampled_from([0.1, 1.0, 10.0, 300.0]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    logits = scale * torch.randn(batch, time, labels + 1, vocabulary, dtype=torch.float64, generator=generator)
    targets = (blank + torch.randint(1, vocabulary, (batch, labels), generator=generator)) % vocabulary
    logit_lengths = torch.randint(1, time + 1, (batch,), generator=generator)
    target_lengths = torch.randint(0, labels + 1, (batch,), generator=generator)
    check_as_enumerated(
        lambda given: lattice_loss(collapse(given, targets, target_lengths, blank), logit_lengths, target_lengths),
        partial(by_enumeration, blank=blank), logits, targets, logit_lengths, target_lengths,
    )  # fmt: skip


def test_the_gradient_of_all_three_is_right_also_for_the_rest() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    targets, lengths = torch.tensor([[1, 4, 2], [3, 0, 9]]), torch.tensor([3, 1])

    def finite(x: Tensor) -> Tensor:
        return collapse(x, targets, lengths, blank=0).nan_to_num(neginf=0.0)

    assert torch.autograd.gradcheck(finite, logits)


def test_a_rest_far_below_one_keeps_its_digits() -> None:
    logits = torch.zeros(1, 1, 2, 6)
    logits[..., 0], logits[..., 3] = 60.0, 59.0
    logits.requires_grad_()
    collapsed = collapse(logits, torch.tensor([[3]]), torch.tensor([1]))
    assert collapsed[0, 0, 0, 2].item() == pytest.approx(math.log(4) - 60 - math.log1p(math.exp(-1)), rel=1e-6)
    collapsed[0, 0, 0, 2].backward()
    share = torch.tensor([-1 / (1 + math.exp(-1)), 0.25, 0.25, -1 / (1 + math.e), 0.25, 0.25])
    torch.testing.assert_close(logits.grad[0, 0, 0], share)  # type: ignore[index]


@pytest.mark.parametrize("scale", [1, 12, 30])
def test_a_long_lattice_keeps_float32_gradients_exact(scale: float) -> None:
    """Paths of 430 log-probabilities, up to some hundred nats each where the model is sure."""
    torch.manual_seed(0)
    logits = torch.randn(1, 400, 31, 20) * scale
    targets, frames, labels = torch.randint(1, 20, (1, 30)), torch.tensor([400]), torch.tensor([30])
    single, double = logits.requires_grad_(), logits.detach().double().requires_grad_()
    for x in (single, double):
        loss = rnnt_loss(x, targets, frames, labels)
        loss.sum().backward()
    assert loss.item() > 450 * scale**0.5
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=0, atol=5e-7)  # type: ignore[union-attr]


@pytest.mark.parametrize("i", CASES)
def test_torchaudio_where_it_is_installed_and_otherwise_a_sentence(i: int) -> None:
    logits, *rest = case(i, torch.float32)
    if torchaudio_loss() is None:
        with pytest.raises(TodmError, match="pip install torchaudio"):
            rnnt_loss(logits, *rest, backend="torchaudio")
        return
    loss = rnnt_loss(logits, *rest, backend="torchaudio")
    np.testing.assert_allclose(loss.detach(), GOLDEN[f"case{i}.loss"], rtol=1e-6)
    loss.sum().backward()
    np.testing.assert_allclose(logits.grad, GOLDEN[f"case{i}.grad"], rtol=0, atol=1e-4)


def test_padding_may_hold_anything_finite() -> None:
    logits, targets, logit_lengths, target_lengths = case(1, torch.float32)
    wild, untidy = logits.detach().clone(), targets.clone()
    for n, (t, u) in enumerate(zip(logit_lengths, target_lengths, strict=True)):
        wild[n, t:] = wild[n, :, u + 1 :] = 3e38 * torch.randn(logits.shape[-1]).clamp(-1, 1)
        untidy[n, u:] = -7
    wild.requires_grad_()
    loss = rnnt_loss(wild, untidy, logit_lengths, target_lengths)
    expected = rnnt_loss(logits, targets, logit_lengths, target_lengths)
    (loss.sum() + expected.sum()).backward()
    assert torch.equal(loss, expected)
    assert torch.equal(wild.grad, logits.grad)  # type: ignore[arg-type]


def test_an_impossible_target_costs_infinitely_and_pulls_nowhere() -> None:
    logits = torch.zeros(2, 3, 2, 4)
    logits[0, ..., 2] = -math.inf
    logits.requires_grad_()
    loss = rnnt_loss(logits, torch.tensor([[2], [2]]), torch.tensor([3, 3]), torch.tensor([1, 1]))
    loss.sum().backward()
    assert loss[0] == math.inf
    assert loss[1].isfinite()
    assert not logits.grad[0].any()  # type: ignore[index]
    assert logits.grad[1].isfinite().all()  # type: ignore[index]


def test_an_empty_batch_and_reductions() -> None:
    logits, *rest = case(0, torch.float64)
    losses = rnnt_loss(logits, *rest)
    torch.testing.assert_close(rnnt_loss(logits, *rest, reduction="sum"), losses.sum())
    torch.testing.assert_close(rnnt_loss(logits, *rest, reduction="mean"), losses.mean())
    assert rnnt_loss(logits[:0], *(x[:0] for x in rest)).shape == (0,)


def test_bfloat16_logits_are_computed_in_float32() -> None:
    logits, *rest = case(0, torch.bfloat16)
    loss = rnnt_loss(logits, *rest)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16
    assert torch.equal(loss, rnnt_loss(logits.float(), *rest))


def test_cutting_the_batch_into_chunks_does_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for size in (1, 10**9):
        monkeypatch.setattr("todm.speech.collapse._CHUNK_LOGITS", size)
        logits, *rest = case(0, torch.float64)
        loss = rnnt_loss(logits, *rest)
        loss.sum().backward()
        results.append((loss, logits.grad))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 3, 12)}, "logits"),
        ({"targets": torch.ones(2, 3, dtype=torch.long)}, "targets must be"),
        ({"targets": torch.tensor([[1, 0], [1, 1]])}, "other than blank"),
        ({"targets": torch.tensor([[1, 5], [1, 1]])}, "classes 0 to 4"),
        ({"logit_lengths": torch.tensor([4, 5])}, "logit_lengths must lie between 1 and 4"),
        ({"logit_lengths": torch.tensor([0, 4])}, "logit_lengths must lie between 1 and 4"),
        ({"logit_lengths": torch.tensor([4.0, 4.0])}, "logit_lengths must be 2 integers"),
        ({"target_lengths": torch.tensor([2, 3])}, "target_lengths must lie between 0 and 2"),
        ({"target_lengths": torch.tensor([2])}, "target_lengths must be 2 integers"),
        ({"blank": 5}, "blank"),
        ({"reduction": "median"}, "reduction"),
        ({"backend": "warp"}, "backend"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    arguments = {
        "logits": torch.zeros(2, 4, 3, 5),
        "targets": torch.ones(2, 2, dtype=torch.long),
        "logit_lengths": torch.tensor([4, 4]),
        "target_lengths": torch.tensor([2, 2]),
    }
    with pytest.raises(ValueError, match=message):
        rnnt_loss(**(arguments | change))
