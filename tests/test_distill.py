"""Divergences against the golden values, closed forms, and what masks and low precision do to them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from todm.distill import AdaptiveAlphaDivergence, alpha_divergence, divergence
from todm.errors import TodmError

GOLDEN = dict(np.load(Path(__file__).parent / "data" / "alpha_divergence.npz", allow_pickle=False))
SETTINGS = [(vocabulary, scale) for vocabulary in range(3) for scale in range(2)]
ALPHAS = GOLDEN["alphas"].tolist()
PROBES = [torch.cos(1 + 0.7 * torch.arange(int(classes), dtype=torch.float64)) for classes in GOLDEN["Ks"]]


def logits(vocabulary: int, scale: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Teacher's and student's."""
    teacher, student = (
        torch.tensor(GOLDEN[f"vocab{vocabulary}.{who}_base"]).to(dtype) * float(GOLDEN["scales"][scale])
        for who in ("teacher", "student")
    )
    return teacher.requires_grad_(), student.requires_grad_()


def close(actual: Tensor, expected: np.ndarray, tolerance: float, size: np.ndarray | float = 1.0) -> None:
    """Relative to the row's largest number, or to `size` where this is larger."""
    rows = np.abs(expected).max(-1, keepdims=True) if expected.ndim > 1 else np.abs(expected)
    worst = np.abs(actual.detach().double().numpy() - expected) / np.maximum(size, rows)
    assert worst.max() <= tolerance


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("vocabulary", "scale"), SETTINGS)
def test_values_and_gradients_are_the_golden_ones(vocabulary: int, scale: int, dtype: torch.dtype) -> None:
    prefix, double = f"vocab{vocabulary}.scale{scale}.", dtype == torch.float64
    for a, alpha in enumerate(ALPHAS):
        for c, clip in enumerate([None, 5.0]):
            teacher, student = logits(vocabulary, scale, dtype)
            value = alpha_divergence(teacher, student, alpha, clip)
            value.sum().backward()
            assert teacher.grad is None
            assert student.grad is not None
            close(value, GOLDEN[prefix + "value"][a, c], 1e-12 if double else 1e-5)
            # The gradient is a difference of terms as large as the surrogate's coefficients.
            size = 1 + np.abs(GOLDEN[prefix + "value"][a, c])
            expected = GOLDEN[prefix + "grad"][a, c]
            close(
                student.grad[: len(expected)],
                expected,
                1e-12 if double else 2e-5,
                size[: len(expected), None],
            )
            close(
                student.grad.double().norm(dim=-1),
                GOLDEN[prefix + "grad_l2"][a, c],
                1e-12 if double else 2e-5,
                size,
            )
            probe = student.grad.double() @ PROBES[vocabulary]
            close(probe, GOLDEN[prefix + "grad_dot_probe"][a, c], 1e-12 if double else 2e-5, size)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("vocabulary", "scale"), SETTINGS)
def test_the_adaptive_choice_is_the_golden_one(vocabulary: int, scale: int, dtype: torch.dtype) -> None:
    prefix, double = f"vocab{vocabulary}.scale{scale}.adaptive.", dtype == torch.float64
    teacher, student = logits(vocabulary, scale, dtype)
    value = AdaptiveAlphaDivergence()(student, teacher)
    value.sum().backward()
    assert student.grad is not None
    clear = np.abs(GOLDEN[prefix + "margin"]) > (1e-9 if double else 1e-4)
    close(value[clear], GOLDEN[prefix + "value"][clear], 1e-12 if double else 5e-6)
    expected = GOLDEN[prefix + "grad"]
    shown = clear[: len(expected)]
    close(student.grad[: len(expected)][shown], expected[shown], 1e-12 if double else 5e-6)
    probe = student.grad.double() @ PROBES[vocabulary]
    close(probe[clear], GOLDEN[prefix + "grad_dot_probe"][clear], 1e-12 if double else 1e-5)


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.3, 1.0, 2.0])
def test_without_a_clip_the_gradient_is_the_derivative_of_the_value(alpha: float) -> None:
    torch.manual_seed(0)
    teacher = torch.randn(2, 3, 5, dtype=torch.float64)
    student = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert alpha_divergence(teacher, student, alpha).shape == (2, 3)
    assert torch.autograd.gradcheck(lambda s: alpha_divergence(teacher, s, alpha), student)


def test_a_teacher_of_certainty_gives_cross_entropy() -> None:
    student = torch.randn(7, 4, dtype=torch.float64)
    label = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    teacher = torch.full((7, 4), -math.inf, dtype=torch.float64).scatter_(1, label[:, None], 0.0)
    torch.testing.assert_close(
        divergence("kl")(student, teacher),
        torch.nn.functional.cross_entropy(student, label, reduction="none"),
    )


@pytest.mark.parametrize("clip", [None, 5.0])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_class_masked_in_both_is_as_good_as_absent(alpha: float, clip: float | None) -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 6, 4).unbind()
    masked_teacher, masked = (torch.nn.functional.pad(x, (0, 1), value=-math.inf) for x in (teacher, student))
    student.requires_grad_()
    masked.requires_grad_()
    value, expected = (
        alpha_divergence(masked_teacher, masked, alpha, clip),
        alpha_divergence(teacher, student, alpha, clip),
    )
    (value.sum() + expected.sum()).backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(masked.grad[:, :4], student.grad)  # type: ignore[index]
    assert torch.equal(masked.grad[:, 4], torch.zeros(6))  # type: ignore[index]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_one_sided_masks_stay_finite(alpha: float) -> None:
    torch.manual_seed(0)
    whole = torch.randn(5, 4)
    holed = whole.clone()
    holed[:, 1] = -math.inf
    for teacher, student in ((whole, holed), (holed, whole)):
        student = student.clone().requires_grad_()
        value = alpha_divergence(teacher, student, alpha)
        value.sum().backward()
        assert value.isfinite().all()
        assert student.grad.isfinite().all()  # type: ignore[union-attr]


def test_bfloat16_logits_are_computed_in_float32() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 6, 9).bfloat16().unbind()
    value = AdaptiveAlphaDivergence()(student.requires_grad_(), teacher)
    value.sum().backward()
    assert value.dtype == torch.float32
    assert student.grad is not None
    assert student.grad.dtype == torch.bfloat16
    assert torch.equal(value, AdaptiveAlphaDivergence()(student.float(), teacher.float()))


def test_a_recipe_names_its_divergence() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 6, 4).unbind()
    assert torch.equal(divergence("kl")(student, teacher), alpha_divergence(teacher, student, 1.0))
    assert torch.equal(
        divergence("alpha", alpha=0.5, clip=2.0)(student, teacher),
        alpha_divergence(teacher, student, 0.5, 2.0),
    )
    adaptive = divergence("adaptive", alpha_min=-0.5, alpha_max=2.0, clip=3.0)
    both = [alpha_divergence(teacher, student, alpha, 3.0) for alpha in (-0.5, 2.0)]
    assert torch.equal(adaptive(student, teacher), torch.maximum(*both))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("js", {}, "kl, alpha, adaptive"),
        ("alpha", {}, "alpha, clip"),
        ("adaptive", {"beta": 1.0}, "alpha_min, alpha_max, clip"),
    ],
)
def test_a_wrong_name_or_setting_lists_the_right_ones(name: str, settings: dict, message: str) -> None:
    with pytest.raises(TodmError, match=message):
        divergence(name, **settings)


def test_shapes_and_clip_are_checked() -> None:
    with pytest.raises(ValueError, match="differ"):
        alpha_divergence(torch.zeros(2, 3), torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="clip"):
        alpha_divergence(torch.zeros(3), torch.zeros(3), 2.0, clip=0.0)


def test_squared_is_the_mean_squared_difference_and_moves_the_student_only():
    student, teacher = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    apart = divergence("squared")(student, teacher)
    torch.testing.assert_close(apart, ((student - teacher) ** 2).mean(-1))
    apart.sum().backward()
    torch.testing.assert_close(student.grad, (student - teacher).detach() / 2)
    assert teacher.grad is None
