"""L0 regularisation by hard-concrete gates on weights (Louizos, Welling & Kingma 2018, arXiv 1712.01312)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from todm.dropout.rates import Rate, RateLike
from todm.dropout.weights import WeightMethod
from todm.space import Width

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
"""Temperature and stretch of the gates (the paper's section 4)."""


def gate(log_a: Tensor, uniform: Tensor) -> Tensor:
    """A gate in [0, 1] from a uniform number in (0, 1), exactly 0 or 1 with positive probability (equation 10)."""
    s = torch.sigmoid((uniform.logit() + log_a) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


class HardConcreteL0(WeightMethod):
    """w times a random gate in training, w times its deterministic estimate in eval (equation 13), which folds into the
    deployed weight; the loss term is lam times the expected number of open gates.

    Args:
        weight: The initial weight, whose shape the gates have.
        lam: Price of an open gate.
        by_input: One gate for each input of the layer, which prunes whole columns, instead of one a weight.
        open_at_start: Probability-like starting point: gates start at log a = log(p / (1 - p)).
        widths: The (elastic) sizes of the weight's first axes: out, in.
    """

    def __init__(
        self, weight: Tensor, lam: RateLike = 1e-6, by_input: bool = False, open_at_start: float = 0.9,
        widths: Sequence[Width] = (),
    ) -> None:  # fmt: skip
        super().__init__(widths)
        self.lam = Rate(lam)
        shape = [1, weight.shape[1], *[1] * (weight.ndim - 2)] if by_input else list(weight.shape)
        # A little noise, for gates that all start alike would stay so a while.
        start = math.log(open_at_start / (1 - open_at_start))
        self.log_a = nn.Parameter(start + 0.01 * torch.randn(shape, device=weight.device))

    def noisy(self, weight: Tensor) -> Tensor:
        uniform = torch.rand_like(self.log_a).clamp(1e-6, 1 - 1e-6)
        return weight * gate(self.log_a, uniform)

    def settled(self, weight: Tensor) -> Tensor:
        """The weight times the deterministic gate, zero for those that are closed."""
        return weight * (torch.sigmoid(self.log_a) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def weight_penalty(self, weight: Tensor) -> Tensor:
        open_ = torch.sigmoid(self.log_a - BETA * math.log(-GAMMA / ZETA))
        return self.lam.now * self.in_use(open_).sum()

    def extra_repr(self) -> str:
        return f"lam={self.lam}"
