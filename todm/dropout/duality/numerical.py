"""The penalties of the table without a closed form: variational dropout and hard-concrete gates.

Each is a curve of f over log eta, from which w = sqrt(eta df / d log eta) follows; splines through a fine grid of it
answer for any w or eta. At lam other than 1, eta and f scale: f(eta) = f_1(eta / lam) / lam.

SciPy is imported where it is used: it takes a second, and most recipes never ask.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from todm.dropout.duality.penalties import Penalty

GRID = np.linspace(-40.0, 40.0, 8001)
"""log eta, or the log a of hard-concrete gates."""


class _Curve:
    """f and eta_hat of one penalty at lam = 1.

    Args:
        log_eta: (n,), rising.
        f: (n,)
        slope: (n,), df / d log eta.
        last: Points from here on are beyond the penalty's flat part and belong to f alone.
    """

    def __init__(self, log_eta: np.ndarray, f: np.ndarray, slope: np.ndarray, last: int | None = None) -> None:
        from scipy.interpolate import CubicHermiteSpline, CubicSpline

        self._ends = log_eta[0], log_eta[-1]
        self._f = CubicHermiteSpline(log_eta, f, slope)
        self._slope = CubicSpline(log_eta, slope)
        log_w = 0.5 * (log_eta + np.log(slope))[:last]
        self._eta = CubicSpline(log_w, log_eta[:last])
        self._log_w = log_w[0], log_w[-1]

    def f(self, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """f and df / d eta; f(0) = 0, and beyond the grid f goes on with the slope of its end."""
        safe = np.maximum(eta, np.exp(self._ends[0]))
        log_eta = np.log(safe)
        inside = np.minimum(log_eta, self._ends[1])
        slope = self._slope(inside)
        value = self._f(inside) + slope * (log_eta - inside)
        return value * (eta / safe), slope / safe

    def eta_hat(self, w: np.ndarray) -> np.ndarray:
        """Zero at zero and linear below the grid; beyond the grid quadratic, as where f goes on with its slope."""
        log_w = np.log(np.maximum(w, np.finfo(float).tiny))
        low, high = self._log_w
        inside = np.clip(log_w, low, high)
        eta = np.exp(self._eta(inside) + np.minimum(log_w - low, 0) + 2 * np.maximum(log_w - high, 0))
        return np.where(w > 0, eta, 0.0)


def _through(function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], x: Tensor) -> Tensor:
    """A function of arrays with its derivative, as a differentiable function of a tensor."""
    value, slope = (torch.as_tensor(a).to(x) for a in function(x.detach().cpu().numpy().astype(np.float64)))
    return value + slope * (x - x.detach())


@dataclass(frozen=True)
class _Numerical(Penalty):
    lam: float = 1.0

    @property
    @abstractmethod
    def _curve(self) -> _Curve:
        """f and eta_hat at lam = 1."""

    def _eta(self, w: np.ndarray) -> np.ndarray:
        return self._curve.eta_hat(w)

    def _value(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Omega and its derivative w / eta_hat at lam = 1."""
        eta = self._eta(w)
        finite = np.where(np.isfinite(eta), eta, 1.0)
        safe = np.maximum(finite, np.finfo(float).tiny)
        slope = np.where(np.isfinite(eta), w / safe, 0.0)
        return np.where(np.isfinite(eta), (w * slope + self._curve.f(finite)[0]) / 2, self._flat), slope

    @property
    def _flat(self) -> float:
        """Omega where eta_hat is infinite."""
        return np.inf

    def _omega(self, w: Tensor) -> Tensor:
        return _through(self._value, w) / self.lam

    def _f(self, eta: Tensor) -> Tensor:
        return _through(self._curve.f, eta / self.lam) / self.lam

    def _eta_hat(self, w: Tensor) -> Tensor:
        return self.lam * torch.as_tensor(self._eta(w.detach().cpu().numpy().astype(np.float64))).to(w)


@dataclass(frozen=True)
class VarDrop(_Numerical):
    """Variational dropout with the log-uniform prior (Kingma et al. 2015), exact:
    f' = dawsn(x) / x at x = sqrt(eta / 2)."""

    @property
    def _curve(self) -> _Curve:
        return _vardrop()


@lru_cache
def _vardrop() -> _Curve:
    """f = 4 times the integral of Dawson's function from 0 to sqrt(eta / 2), by Gauss-Legendre between grid points."""
    from scipy.special import dawsn

    x = np.sqrt(np.exp(GRID) / 2)
    nodes, weights = leggauss(8)
    half = np.diff(x)[:, None] / 2
    pieces = (half * weights * dawsn(x[:-1, None] + half * (nodes + 1))).sum(1)
    f = 4 * (x[0] ** 2 / 2 + np.concatenate([[0.0], np.cumsum(pieces)]))
    return _Curve(GRID, f, np.exp(GRID) * dawsn(x) / x)


@dataclass(frozen=True)
class VarDropApprox(_Numerical):
    """Its usual approximation (Molchanov et al. 2017, arXiv 1701.05369, equation 14):
    f = 2 (k1 sigmoid(k3 log eta - k2) + log(1 + eta) / 2)."""

    k1: float = 0.63576
    k2: float = 1.87320
    k3: float = 1.48695

    @property
    def _curve(self) -> _Curve:
        return _vardrop_approx(self.k1, self.k2, self.k3)


@lru_cache
def _vardrop_approx(k1: float, k2: float, k3: float) -> _Curve:
    from scipy.special import expit

    gate, eta = expit(k3 * GRID - k2), np.exp(GRID)
    slope = 2 * k1 * k3 * gate * expit(k2 - k3 * GRID) + expit(GRID)
    return _Curve(GRID, 2 * k1 * gate + np.log1p(eta), slope)


@dataclass(frozen=True)
class HardConcrete(_Numerical):
    """Hard-concrete gates (Louizos et al. 2018, arXiv 1712.01312): f is the probability that a gate is open, at the
    log a for which its relative variance is lam / eta.

    f is not convex in 1 / eta, so the duality holds one way: Omega is the minimum, f at most 0.0016 above the supremum.
    """

    beta: float = 2 / 3
    gamma: float = -0.1
    zeta: float = 1.1

    @property
    def _curve(self) -> _Curve:
        return _hard_concrete(self.beta, self.gamma, self.zeta)[0]

    def _eta(self, w: np.ndarray) -> np.ndarray:
        curve, saturation = _hard_concrete(self.beta, self.gamma, self.zeta)
        return np.where(w < saturation, curve.eta_hat(np.minimum(w, saturation)), np.inf)

    @property
    def _flat(self) -> float:
        return 0.5


@lru_cache
def _hard_concrete(beta: float, gamma: float, zeta: float) -> tuple[_Curve, float]:
    """The curve, and the w from which Omega is flat at 1/2: there w^2 / eta + f has reached its limit 1."""
    from scipy.interpolate import CubicSpline
    from scipy.optimize import brentq
    from scipy.special import expit, logit

    log_a = GRID[::2]
    nodes, weights = leggauss(200)
    s, weights = (nodes + 1) / 2, weights / 2
    shift = beta * logit((s - gamma) / (zeta - gamma))
    above = expit(log_a[:, None] - shift)  # P(gate > s)
    below = expit(shift - log_a[:, None])
    density = above * below  # d above / d log a
    mean, second = above @ weights, above @ (2 * s * weights)
    # The variance from the far side of the gate where that is the smaller one: no cancellation at either end.
    short = below @ weights
    far = below @ (2 * (1 - s) * weights) - short**2
    variance = np.where(log_a < 0, second - mean**2, far)
    log_eta = 2 * np.log(mean) - np.log(variance)
    f = expit(log_a - beta * np.log(-gamma / zeta))
    d_mean, d_second = density @ weights, density @ (2 * s * weights)
    d_far = -(density @ (2 * (1 - s) * weights)) + 2 * short * d_mean
    d_variance = np.where(log_a < 0, d_second - 2 * mean * d_mean, d_far)
    d_log_eta = 2 * d_mean / mean - d_variance / variance
    slope = f * expit(beta * np.log(-gamma / zeta) - log_a) / d_log_eta
    total = CubicSpline(log_eta, slope + f - 1)
    first = int(np.argmax(slope + f > 1))
    end = brentq(total, log_eta[first - 1], log_eta[first], xtol=1e-13)
    saturation = float(np.sqrt(np.exp(end) * CubicSpline(log_eta, slope)(end)))
    return _Curve(log_eta, f, slope, first + 8), saturation
