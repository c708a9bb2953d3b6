"""Training methods on top of a penalty and its dual (LeJeune et al. 2021, section 5). All act on weights, and all prune
in eval what their mask has closed: weights whose keep probability eta / (eta + lambda) is below `closed`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from todm.dropout.duality.penalties import Penalty, penalty_from
from todm.dropout.rates import Rate, RateLike
from todm.dropout.weights import WeightMethod
from todm.space import Width

PenaltyLike = Penalty | Mapping[str, Any] | str
"""A penalty, its name, or a recipe's `{name: NAME, argument: value}`."""
FLOOR = 1e-3
"""Least keep probability that noise and Tikhonov weights are computed with: their inverse must stay finite."""


class DualMethod(WeightMethod):
    """What the methods share.

    Args:
        penalty: Omega and its dual.
        lam: Its weight lambda beside the loss; may have a schedule.
        closed: Weights whose keep probability is below are zero in eval.
        widths: The (elastic) sizes of the weight's first axes: out, in.
    """

    strength: Tensor

    def __init__(
        self, penalty: PenaltyLike = "log_sum", lam: RateLike = 1e-3, closed: float = 0.05,
        widths: Sequence[Width] = (),
    ) -> None:  # fmt: skip
        super().__init__(widths)
        self.form = penalty_from(penalty)
        self.lam = Rate(lam)
        self.closed = closed
        # Eval prunes by the lambda that training had, in averaged and in loaded models too.
        self.register_buffer("strength", torch.tensor(self.lam.now))

    def keep(self, weight: Tensor) -> Tensor:
        """Keep probability of each weight at the current lambda, no less than a thousandth; a constant to gradients."""
        return self.form.keep(weight.detach(), self.lam.now).clamp_min(FLOOR)

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in, ...) -> the same shape."""
        if self.training:
            self.strength.fill_(self.lam.now)
        return super().forward(weight)

    def settled(self, weight: Tensor) -> Tensor:
        """The weight without what is closed."""
        return weight * (self.form.keep(weight.detach(), float(self.strength)) >= self.closed)

    def extra_repr(self) -> str:
        return f"{self.form}, lam={self.lam}, closed={self.closed}"


class AdaptiveBernoulli(DualMethod):
    """Scaled Bernoulli dropout of each weight, which keeps it with alpha = eta_hat(w) / (eta_hat(w) + lambda), drawn
    for each batch: w s / alpha with s ~ Bernoulli(alpha). Mean 1, variance lambda / eta."""

    def noisy(self, weight: Tensor) -> Tensor:
        keep = self.keep(weight)
        return weight * torch.bernoulli(keep) / keep


class AdaptiveGaussian(DualMethod):
    """The same with Gaussian noise of the same mean and variance: w (1 + sqrt(lambda / eta_hat(w)) e), e ~ N(0, 1)."""

    def noisy(self, weight: Tensor) -> Tensor:
        keep = self.keep(weight)
        return weight * (1 + torch.randn_like(weight) * ((1 - keep) / keep).sqrt())


class EtaTrick(DualMethod):
    """Weights and eta are learnt together on (lambda / 2) (w^2 / eta + f(eta)); log eta is the parameter.

    Args:
        weight: The initial weight: eta starts as its eta_hat.
    """

    def __init__(
        self, weight: Tensor | None = None, penalty: PenaltyLike = "log_sum", lam: RateLike = 1e-3,
        closed: float = 0.05, widths: Sequence[Width] = (),
    ) -> None:  # fmt: skip
        super().__init__(penalty, lam, closed, widths)
        start = self.form.eta_hat(weight.detach() if weight is not None else torch.ones(1))
        self.log_eta = nn.Parameter(start.clamp(1e-6, 1e6).log())

    def weight_penalty(self, weight: Tensor) -> Tensor:
        eta = self.in_use(self.log_eta).exp()
        return self.lam.now / 2 * (self.in_use(weight) ** 2 / eta + self.form.f(eta)).sum()

    def settled(self, weight: Tensor) -> Tensor:
        """The weight without what the learnt eta has closed."""
        eta = self.log_eta.exp()
        return weight * (eta >= self.closed * (eta + self.strength))


class AdaptiveTikhonov(DualMethod):
    """The Tikhonov term (lambda / 2) w^2 / eta with eta = eta_hat(w) of each update, a constant to gradients."""

    def weight_penalty(self, weight: Tensor) -> Tensor:
        weight = self.in_use(weight)
        keep = self.keep(weight)
        return (weight**2 * ((1 - keep) / keep)).sum() / 2


class AdaptiveProx(DualMethod):
    """The proximal step of that Tikhonov term after each update: w <- w eta / (eta + step lambda), eta = eta_hat(w),
    where `step` is the optimiser's step size of each weight."""

    @torch.no_grad()
    def after_weight_step(self, weight: nn.Parameter, step: Tensor | float) -> None:
        eta = self.form.eta_hat(weight.detach())
        shrunk = torch.where(eta.isinf(), weight, weight * eta / (eta + step * self.lam.now))
        weight.copy_(shrunk.nan_to_num(0.0))  # 0 / 0 where a weight and lambda are both zero


class DirectPenalty(DualMethod):
    """lambda Omega(w) itself as a term of the loss."""

    def weight_penalty(self, weight: Tensor) -> Tensor:
        return self.lam.now * self.form.omega(self.in_use(weight)).sum()
