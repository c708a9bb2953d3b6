"""Divergences of a student from its teacher (Wang et al., "AlphaNet", ICML 2021, equations 2 to 6).

With p the teacher's and q the student's probabilities and r = p/q,

    D = sum q (r^a - 1) / (a (a - 1)),    a -> 0: KL(q || p),    a -> 1: KL(p || q).

Gradients are those of the paper's surrogate, -sum q rho log q with q and rho constant, where a clip bounds
what a class the student underestimates can do: rho = min(r^a, clip) / a. Without a clip it is the gradient of
D. The surrogate may be negative; what the functions here return is always the divergence.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from todm.errors import TodmError


def alpha_divergence(teacher_logits: Tensor, student_logits: Tensor, alpha: float, clip: float | None = None) -> Tensor:
    """Alpha-divergence, logits (..., classes) to (...), float32 at least; the teacher gets no gradient.

    `clip` bounds r^alpha, or r inside the logarithm at alpha 0; at alpha 1 it does nothing. Logits can be
    -inf. Raises ValueError if the shapes differ or the clip is not positive.
    """
    return AdaptiveAlphaDivergence(alpha, alpha, clip)(student_logits, teacher_logits)


@dataclass(frozen=True)
class AdaptiveAlphaDivergence:
    """Of the divergences at `alpha_min` and `alpha_max` the larger one, sample by sample.

    Negative alphas punish a student surer than its teacher, positive ones a student blind to what it sees.
    """

    alpha_min: float = -1.0
    alpha_max: float = 1.0
    clip: float | None = 5.0

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Logits (..., classes) to (...)."""
        shapes = tuple(student_logits.shape), tuple(teacher_logits.shape)
        if shapes[0] != shapes[1]:
            raise ValueError(f"student and teacher differ in shape: {shapes[0]} and {shapes[1]}")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip must be above 0 or None, not {self.clip}")
        dtype = torch.promote_types(student_logits.dtype, teacher_logits.dtype)
        dtype = torch.promote_types(dtype, torch.float32)
        return _Divergence.apply(student_logits.to(dtype), teacher_logits.detach().to(dtype), self)


def _fixed(alpha: float, clip: float | None = 5.0) -> AdaptiveAlphaDivergence:
    return AdaptiveAlphaDivergence(alpha, alpha, clip)


def squared(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean squared difference of what is not probabilities, e.g. hidden vectors: (..., features) to (...)."""
    return (student_logits.float() - teacher_logits.detach().float()).square().mean(-1)


DIVERGENCES: dict[str, Callable[..., Callable[[Tensor, Tensor], Tensor]]] = {
    "kl": partial(_fixed, 1.0, None),
    "alpha": _fixed,
    "adaptive": AdaptiveAlphaDivergence,
    "squared": lambda: squared,
}


def divergence(name: str, **settings: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The divergence a recipe names, called with (student_logits, teacher_logits).

    Raises TodmError for an unknown name, and for a setting it lacks or does not have.
    """
    if name not in DIVERGENCES:
        raise TodmError(f"unknown divergence '{name}'; choose one of: {', '.join(DIVERGENCES)}")
    try:
        return DIVERGENCES[name](**settings)
    except TypeError as error:
        known = ", ".join(inspect.signature(DIVERGENCES[name]).parameters) or "none"
        raise TodmError(f"divergence '{name}' was given {settings}; its settings are: {known}") from error


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, settings: AdaptiveAlphaDivergence) -> Tensor:
        log_p, log_q = _log_softmax(teacher), _log_softmax(student)
        log_r, bound = log_p - log_q, math.inf if settings.clip is None else math.log(settings.clip)
        value, grad = _at(settings.alpha_max, log_q, log_r, bound)
        if settings.alpha_min != settings.alpha_max:
            other, other_grad = _at(settings.alpha_min, log_q, log_r, bound)
            larger = other > value
            value, grad = torch.where(larger, other, value), torch.where(larger[..., None], other_grad, grad)
        ctx.save_for_backward(grad)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * grad_value.unsqueeze(-1), None, None


def _log_softmax(logits: Tensor) -> Tensor:
    """Much faster than torch's for few classes; a floor, far below any true value, keeps 0/0 away."""
    logits = logits - logits.amax(-1, keepdim=True)
    return logits.sub_(logits.exp().sum(-1, keepdim=True).log_()).clamp_(min=-1e4)


def _at(alpha: float, log_q: Tensor, log_r: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Divergence (...) and the gradient of its surrogate in the student's logits (..., classes)."""
    q = log_q.exp()
    if alpha == 0:
        q_rho = q * log_r.clamp(max=bound)
        value = -q_rho.sum(-1)
    elif alpha == 1:
        q_rho = (log_q + log_r).exp()
        value = (q_rho * log_r).sum(-1)
    else:
        # One exponential: r^alpha alone overflows where q r^alpha does not; and bounded even without a clip.
        largest = math.log(torch.finfo(q.dtype).max) - 10
        weighted = (log_q + (alpha * log_r).clamp(max=bound)).clamp(max=largest).exp()
        value = (weighted - q).sum(-1) / (alpha * (alpha - 1))
        q_rho = weighted / alpha
    return value, q * q_rho.sum(-1, keepdim=True) - q_rho
