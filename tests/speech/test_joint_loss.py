"""The fused joiner and loss against the loss of the joiner's logits, with every gradient."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from todm.speech import joint_rnnt_loss, rnnt_loss
from todm.speech.collapse import collapse
from todm.speech.joint_loss import _negligible, joint_collapse

Inputs = tuple[Tensor, Tensor, nn.Module, Tensor, Tensor, Tensor]


def inputs(
    seed: int, batch: int = 3, time: int = 7, labels: int = 4, vocabulary: int = 6, size: int = 5, scale: float = 1.0
) -> Inputs:
    """Random encoder and predictor outputs (scaled), joiner, targets and lengths, in float64."""
    torch.manual_seed(seed)
    joiner = nn.Sequential(nn.Tanh(), nn.Linear(size, vocabulary)).double()
    encoded = scale * torch.randn(batch, time, size, dtype=torch.float64)
    predicted = scale * torch.randn(batch, labels + 1, size, dtype=torch.float64)
    with torch.no_grad():
        joiner[1].weight *= scale
    return (
        encoded.requires_grad_(), predicted.requires_grad_(), joiner, torch.randint(1, vocabulary, (batch, labels)),
        torch.randint(1, time + 1, (batch,)), torch.randint(0, labels + 1, (batch,)),
    )  # fmt: skip


def dense(encoded: Tensor, predicted: Tensor, joiner: nn.Module, *rest: Tensor) -> Tensor:
    return rnnt_loss(joiner(encoded[:, :, None] + predicted[:, None]), *rest)


def gradients(loss: Callable[..., Tensor], arguments: Inputs, weight: Tensor) -> list[Tensor]:
    leaves = [*arguments[:2], *arguments[2].parameters()]
    value = loss(*arguments)
    return [value.detach(), *torch.autograd.grad((weight * value).sum(), leaves)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999), batch=st.integers(1, 4), time=st.integers(1, 9), labels=st.integers(0, 5),
    scale=st.sampled_from([0.1, 1.0, 5.0, 30.0]), block=st.sampled_from([1, 60, 200, 10**6]),
)  # fmt: skip
def test_loss_and_gradients_are_those_of_the_logits(
    seed: int, batch: int, time: int, labels: int, scale: float, block: int
) -> None:
    arguments = inputs(seed, batch, time, labels, scale=scale)
    weight = torch.randn(batch, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("todm.speech.joint_loss._BLOCK_NUMBERS", {"cpu": block})
        fused = gradients(joint_rnnt_loss, arguments, weight)
    for ours, theirs in zip(fused, gradients(dense, arguments, weight), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_a_sharp_lattice_in_float32_loses_nothing_to_the_cells_left_out() -> None:
    """Alignments so sure that most cells are left out, against float64 with all of them."""
    arguments = inputs(0, batch=2, time=60, labels=20, size=16, vocabulary=30, scale=3.0)
    weight = torch.ones(2, dtype=torch.float64)
    exact = gradients(dense, arguments, weight)
    encoded, predicted = (x.detach().float().requires_grad_() for x in arguments[:2])
    joiner = nn.Sequential(nn.Tanh(), nn.Linear(16, 30))
    joiner.load_state_dict(arguments[2].state_dict())
    rerun = 0

    def count(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal rerun
        rerun += given[0][..., 0].numel() * torch.is_grad_enabled()

    joiner[0].register_forward_pre_hook(count)
    ours = gradients(joint_rnnt_loss, (encoded, predicted, joiner, *arguments[3:]), weight.float())
    assert rerun < 0.8 * 2 * 60 * 21
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6 * b.abs().max().item())


@given(seed=st.integers(0, 999), dim=st.sampled_from([1, 2]), spread=st.floats(0, 15))
def test_what_is_left_out_is_all_that_rounding_would_lose(seed: int, dim: int, spread: float) -> None:
    size = (spread * torch.randn(2, 9, 7, generator=torch.manual_seed(seed), dtype=torch.float64)).exp().float()
    left_out = _negligible(size, dim)
    lost = (size.double() * left_out).sum(dim)
    most = size.double().sum(dim) * torch.finfo(torch.float32).eps / 2
    next_one = size.masked_fill(left_out, torch.inf).amin(dim).double()
    assert (lost <= most).all()
    assert (lost + next_one > most).all()


def test_collapse_and_what_flows_back_into_the_rest() -> None:
    encoded, predicted, joiner, targets, frames, labels = inputs(1)
    weight = torch.randn(3, 7, 5, 3, dtype=torch.float64)
    within = (torch.arange(7)[:, None] < frames[:, None, None]) & (torch.arange(5) <= labels[:, None, None])
    weight *= within[..., None]

    def total(three: Tensor) -> Tensor:
        return (weight * three.masked_fill(three.isinf(), 0.0)).sum()

    fused = joint_collapse(encoded, predicted, joiner, targets, frames, labels)
    plain = collapse(joiner(encoded[:, :, None] + predicted[:, None]), targets, labels)
    torch.testing.assert_close(fused[within], plain[within])
    assert not fused[~within].any()
    leaves = [encoded, predicted, *joiner.parameters()]
    for a, b in zip(torch.autograd.grad(total(fused), leaves), torch.autograd.grad(total(plain), leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_inputs_may_lie_in_memory_in_any_order() -> None:
    encoded, predicted, joiner, *rest = inputs(4)
    expected = gradients(joint_rnnt_loss, (encoded, predicted, joiner, *rest), torch.ones(3, dtype=torch.float64))
    turned = (x.detach().transpose(0, 1).contiguous().requires_grad_() for x in (encoded, predicted))
    of_encoded, of_predicted = turned
    loss = joint_rnnt_loss(of_encoded.transpose(0, 1), of_predicted.transpose(0, 1), joiner, *rest)
    loss.sum().backward()
    torch.testing.assert_close(of_encoded.grad.transpose(0, 1), expected[1])  # type: ignore[union-attr]
    torch.testing.assert_close(of_predicted.grad.transpose(0, 1), expected[2])  # type: ignore[union-attr]


def test_frozen_parameters_and_inputs_without_gradient() -> None:
    encoded, predicted, joiner, *rest = inputs(2)
    joiner[1].bias.requires_grad_(False)  # type: ignore[index]
    loss = joint_rnnt_loss(encoded.detach(), predicted, joiner, *rest)
    loss.sum().backward()
    assert joiner[1].bias.grad is None  # type: ignore[index]
    (expected,) = torch.autograd.grad(dense(encoded, predicted, joiner, *rest).sum(), [predicted])
    torch.testing.assert_close(predicted.grad, expected)
    with torch.no_grad():
        torch.testing.assert_close(joint_rnnt_loss(encoded, predicted, joiner, *rest), loss)


def test_autocast_runs_the_joiner_in_bfloat16_both_ways_and_sums_in_float32() -> None:
    encoded, predicted, joiner, *rest = inputs(3, size=16)
    joiner.float()
    arguments = (encoded.detach().float().requires_grad_(), predicted.detach().float().requires_grad_(), joiner, *rest)
    with torch.autocast("cpu", torch.bfloat16):
        loss = joint_rnnt_loss(*arguments)
        logits = joiner(arguments[0][:, :, None] + arguments[1][:, None])
    leaves = [*arguments[:2], *joiner.parameters()]
    grads = torch.autograd.grad(loss.sum(), leaves)
    assert loss.dtype == torch.float32
    assert logits.dtype == torch.bfloat16
    expected = rnnt_loss(logits, *rest)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    for a, b in zip(grads, torch.autograd.grad(expected.sum(), leaves), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02 * b.abs().max().item())


def test_gradients_that_are_not_finite_are_passed_on() -> None:
    encoded, predicted, joiner, *rest = inputs(4)
    (joint_rnnt_loss(encoded, predicted, joiner, *rest) * float("nan")).sum().backward()
    assert encoded.grad is not None
    assert encoded.grad.isnan().any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(3, 7, 4)}, "what is joined"),
        ({1: torch.zeros(2, 5, 5)}, "what is joined"),
        ({2: torch.tanh}, "nn.Module"),
        ({2: nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 6)).double()}, "random numbers"),
        ({3: torch.ones(3, 5, dtype=torch.long)}, "targets must be"),
        ({3: torch.zeros(3, 4, dtype=torch.long), 5: torch.tensor([1, 1, 1])}, "other than blank"),
        ({4: torch.tensor([8, 1, 1])}, "encoder_lengths must lie between 1 and 7"),
        ({5: torch.tensor([5, 1, 1])}, "target_lengths must lie between 0 and 4"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    arguments = [change.get(place, value) for place, value in enumerate(inputs(5))]
    with pytest.raises(ValueError, match=message):
        joint_rnnt_loss(*arguments)
