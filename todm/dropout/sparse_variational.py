"""Sparse variational dropout: a Gaussian posterior of each weight (Molchanov et al. 2017, arXiv 1701.05369)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from todm.dropout.rates import Rate, RateLike
from todm.dropout.weights import WeightMethod
from todm.space import Width

K1, K2, K3 = 0.63576, 1.87320, 1.48695
"""Constants of the fitted divergence (the paper's equation 14)."""


def divergence(log_alpha: Tensor) -> Tensor:
    """KL of N(w, alpha w^2) from the log-uniform prior, up to a constant: 0 for alpha to infinity. Any shape."""
    return K1 - K1 * torch.sigmoid(K2 + K3 * log_alpha) + 0.5 * F.softplus(-log_alpha)


class SparseVariational(WeightMethod):
    """w + sigma e in training, e ~ N(0, 1) drawn for each batch, sigma learnt (additive form); w in eval, with zeros
    where log alpha = log(sigma^2 / w^2) is above the threshold.

    Args:
        weight: The initial weight, whose shape sigma has.
        scale: Weight of the divergence: 1 / the number of training samples, times a warm-up if it has a schedule.
        threshold: Of log alpha; 3 is a keep probability of 0.05.
        widths: The (elastic) sizes of the weight's first axes: out, in.
    """

    def __init__(
        self, weight: Tensor, scale: RateLike = 1e-5, threshold: float = 3.0, widths: Sequence[Width] = ()
    ) -> None:
        super().__init__(widths)
        self.scale = Rate(scale)
        self.threshold = threshold
        self.log_variance = nn.Parameter(torch.full_like(weight.detach(), -10.0))

    def log_alpha(self, weight: Tensor) -> Tensor:
        """log(sigma^2 / w^2), kept between -8 and 8 as the paper's authors do."""
        return (self.log_variance - torch.log(weight**2 + 1e-16)).clamp(-8, 8)

    def noisy(self, weight: Tensor) -> Tensor:
        return weight + torch.randn_like(weight) * torch.exp(0.5 * self.log_variance)

    def settled(self, weight: Tensor) -> Tensor:
        """The weight without those that are nearly all noise."""
        return weight * (self.log_alpha(weight) < self.threshold)

    def weight_penalty(self, weight: Tensor) -> Tensor:
        return self.scale.now * divergence(self.in_use(self.log_alpha(weight))).sum()

    def extra_repr(self) -> str:
        return f"scale={self.scale}, threshold={self.threshold}"
