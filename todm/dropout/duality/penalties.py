"""Penalties and their duals (LeJeune, Javadi & Baraniuk 2021, arXiv 2106.07769, table 1), each in closed form.

A penalty Omega and its dual f belong together by

    2 Omega(w) = min over eta >= 0 of  w^2 / eta + f(eta),      f(eta) = sup over w of  2 Omega(w) - w^2 / eta,

and eta_hat(w) = w / Omega'(w) is the minimiser. Dropout of mean 1 and variance lambda / eta on a weight is, in
expectation, the Tikhonov term lambda w^2 / (2 eta): adapting eta to eta_hat(w) makes it the penalty lambda Omega(w).
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from todm.errors import TodmError

Values = TypeVar("Values", Tensor, np.ndarray)


def _applied(function: Callable[[Tensor], Tensor], values: Values) -> Values:
    """A function of tensors on a tensor, or on an array in double precision."""
    if isinstance(values, Tensor):
        return function(values)
    return function(torch.as_tensor(np.asarray(values, dtype=np.float64))).numpy()


class Penalty(ABC):
    """A separable penalty on |w|: three functions, elementwise on tensors (differentiable) or arrays."""

    def omega(self, w: Values) -> Values:
        """The penalty of each weight."""
        return _applied(lambda w: self._omega(w.abs()), w)

    def f(self, eta: Values) -> Values:
        """The dual, for eta >= 0."""
        return _applied(self._f, eta)

    def eta_hat(self, w: Values) -> Values:
        """The eta at which w^2 / eta + f(eta) is least; infinite where the penalty is flat."""
        return _applied(lambda w: self._eta_hat(w.abs()), w)

    def keep(self, w: Values, lam: float) -> Values:
        """Keep probability eta / (eta + lam) of the scaled Bernoulli mask whose variance is lam / eta; 1 at lam = 0."""

        def keep(w: Tensor) -> Tensor:
            eta = self._eta_hat(w.abs())
            return torch.where(eta.isinf() | (eta + lam == 0), torch.ones_like(eta), eta / (eta + lam))

        return _applied(keep, w)

    @abstractmethod
    def _omega(self, w: Tensor) -> Tensor:
        """`omega` of a tensor of magnitudes."""

    @abstractmethod
    def _f(self, eta: Tensor) -> Tensor:
        """`f` of a tensor."""

    @abstractmethod
    def _eta_hat(self, w: Tensor) -> Tensor:
        """`eta_hat` of a tensor of magnitudes."""


@dataclass(frozen=True)
class Lp(Penalty):
    """Omega = w^p / p, f = eta^q / q with q = p / (2 - p), for 0 < p < 2; p = 1 is the lasso."""

    p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.p < 2:
            raise ValueError(f"Lp needs 0 < p < 2, got {self.p}")

    def _omega(self, w: Tensor) -> Tensor:
        return w**self.p / self.p

    def _f(self, eta: Tensor) -> Tensor:
        q = self.p / (2 - self.p)
        return eta**q / q

    def _eta_hat(self, w: Tensor) -> Tensor:
        return w ** (2 - self.p)


@dataclass(frozen=True)
class LogSum(Penalty):
    """Omega = log(w + eps), f = 2 log(v + eps) - v^2 / eta with v (v + eps) = eta."""

    eps: float = 1.0

    def _omega(self, w: Tensor) -> Tensor:
        return torch.log(w + self.eps)

    def _f(self, eta: Tensor) -> Tensor:
        v = 2 * eta / (self.eps + torch.sqrt(self.eps**2 + 4 * eta))  # without the cancellation of the schoolbook root
        return 2 * torch.log(v + self.eps) - v / (v + self.eps)

    def _eta_hat(self, w: Tensor) -> Tensor:
        return w * (w + self.eps)


@dataclass(frozen=True)
class Log2Sum(Penalty):
    """Omega = log(w^2 + eps); f = 2 log(2 eta) + eps / eta - 2 from eta = eps / 2 on, 2 log(eps) below.

    The published code has -eps / eta, which breaks the identity above.
    """

    eps: float = 1.0

    def _omega(self, w: Tensor) -> Tensor:
        return torch.log(w**2 + self.eps)

    def _f(self, eta: Tensor) -> Tensor:
        eta = eta.clamp_min(self.eps / 2)
        return 2 * torch.log(2 * eta) + self.eps / eta - 2

    def _eta_hat(self, w: Tensor) -> Tensor:
        return (w**2 + self.eps) / 2


@dataclass(frozen=True)
class SCAD(Penalty):
    """Smoothly clipped absolute deviation (Fan & Li 2001) over lam: w up to lam, flat from a lam on, smooth between.

    f = eta up to lam, then lam ((a + 1) eta - lam) / ((a - 1) lam + eta).
    """

    a: float = 3.7
    lam: float = 1.0

    def _omega(self, w: Tensor) -> Tensor:
        a, lam = self.a, self.lam
        between = (2 * a * lam * w - w**2 - lam**2) / (2 * (a - 1) * lam)
        flat = torch.full_like(w, (a + 1) * lam / 2)
        return torch.where(w <= lam, w, torch.where(w <= a * lam, between, flat))

    def _f(self, eta: Tensor) -> Tensor:
        a, lam = self.a, self.lam
        return torch.where(eta <= lam, eta, lam * ((a + 1) * eta - lam) / ((a - 1) * lam + eta))

    def _eta_hat(self, w: Tensor) -> Tensor:
        a, lam = self.a, self.lam
        between = (a - 1) * lam * w / (a * lam - w).clamp_min(0)
        return torch.where(w <= lam, w, torch.where(w < a * lam, between, torch.full_like(w, torch.inf)))


@dataclass(frozen=True)
class MCP(Penalty):
    """Minimax concave penalty (Zhang 2010) over lam: w - w^2 / (2 a lam), flat from a lam on.

    f = a lam eta / (eta + a lam).
    """

    a: float = 2.0
    lam: float = 1.0

    def _omega(self, w: Tensor) -> Tensor:
        end = self.a * self.lam
        w = w.clamp_max(end)
        return w - w**2 / (2 * end)

    def _f(self, eta: Tensor) -> Tensor:
        end = self.a * self.lam
        return end * eta / (eta + end)

    def _eta_hat(self, w: Tensor) -> Tensor:
        end = self.a * self.lam
        return torch.where(w < end, end * w / (end - w).clamp_min(0), torch.full_like(w, torch.inf))


class HardThreshold(MCP):
    """MCP at a = 1: its proximal operator at unit weight is hard thresholding at lam (Antoniadis 1997)."""

    def __init__(self, lam: float = 1.0) -> None:
        super().__init__(1.0, lam)


@dataclass(frozen=True)
class ARD(Penalty):
    """Automatic relevance determination, separable form: f = log(1 + c eta).

    eta_hat = (w^2 + sqrt(w^4 + 4 w^2 / c)) / 2. In the full form (Wipf & Nagarajan 2007) f is the log-determinant of a
    covariance, and c the value that solves its fixed point.
    """

    c: float = 1.0

    def _omega(self, w: Tensor) -> Tensor:
        # w^2 / eta_hat without dividing by zero: w is taken out of the root.
        ratio = 2 * w / (w + torch.sqrt(w**2 + 4 / self.c))
        return (ratio + torch.log1p(self.c * self._eta_hat(w))) / 2

    def _f(self, eta: Tensor) -> Tensor:
        return torch.log1p(self.c * eta)

    def _eta_hat(self, w: Tensor) -> Tensor:
        return w * (w + torch.sqrt(w**2 + 4 / self.c)) / 2


@dataclass(frozen=True)
class Standout(Penalty):
    """What standout's keep probability sigmoid(w) penalises: Omega = (1 - (w + 1) exp(-w)) / lam, eta_hat = lam exp(w).

    f = 0 up to lam, then, with L = log(eta / lam), (2 / lam) (1 - (1 + L) lam / eta) - L^2 / eta.
    """

    lam: float = 1.0

    def _omega(self, w: Tensor) -> Tensor:
        return (1 - (w + 1) * torch.exp(-w)) / self.lam

    def _f(self, eta: Tensor) -> Tensor:
        eta = eta.clamp_min(self.lam)
        log = torch.log(eta / self.lam)
        return (2 / self.lam) * (1 - (1 + log) * self.lam / eta) - log**2 / eta

    def _eta_hat(self, w: Tensor) -> Tensor:
        return self.lam * torch.exp(w)


def penalty_from(described: Penalty | Mapping[str, Any] | str) -> Penalty:
    """A penalty from what a user gives: itself, its name, or a recipe's `{name: log_sum, eps: 0.1}`.

    Raises:
        TodmError: an unknown name or argument, or a wrong value.
    """
    from todm.dropout.duality import PENALTIES

    if isinstance(described, Penalty):
        return described
    values = {"name": described} if isinstance(described, str) else dict(described)
    kind = PENALTIES.get(values.pop("name", ""))
    if kind is None:
        raise TodmError(f"a penalty is {{name: NAME, ...}} with one of {', '.join(PENALTIES)}; got {described!r}")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        known = ", ".join(f.name for f in dataclasses.fields(kind))  # type: ignore[arg-type]
        raise TodmError(f"penalty {described!r}: {error}; its arguments are {known}") from None
