"""Annealed mixture of a feature map and its dropped-out self (Xu et al. 2024, "Adaptive Dropout: Unleashing Dropout
across Layers for Generalizable Image Super-Resolution")."""

import torch
from torch import Tensor, nn

from todm.dropout.rates import Probability, Rate, RateLike
from todm.dropout.schedule import FrontToBack
from todm.dropout.site import along_channels
from todm.dropout.spatial import channel_mask
from todm.space import Width, active, full

ANNEALED = FrontToBack(0.3)
"""The paper's weight: 0.3, and 1 from the shallowest layer on."""


def mixture(x: Tensor, weight: Tensor | float, mask: Tensor) -> Tensor:
    """weight x + (1 - weight) mask x: the mask has mean 1, so the result has the mean of x and less of the noise."""
    return x * (weight + (1 - weight) * mask)


class AnnealedMixture(nn.Module):
    """z = p x + (1 - p) Dropout2d(x); identity at p = 1, where training ends: train and test see the same then.

    The multiplier of a channel has mean 1 and variance (1 - p)^2 q / (1 - q), q the drop probability.

    Args:
        rate: q, of whole channels.
        weight: p; by default 0.3, annealed to 1 layer by layer from the shallowest.
    """

    def __init__(self, rate: RateLike = 0.5, weight: RateLike = ANNEALED) -> None:
        super().__init__()
        self.rate = Probability(rate)
        self.weight = Rate(weight)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) or (batch, ..., features) -> the same shape."""
        if not self.training or self.weight.now == 1 or self.rate.now == 0:
            return x
        return mixture(x, self.weight.now, channel_mask(x, self.rate.now))

    def extra_repr(self) -> str:
        return f"rate={self.rate}, weight={self.weight}"


class LearntMixture(nn.Module):
    """The mixture with a learnt p = sigmoid(a) of each channel.

    Args:
        width: Channels: axis 1 of images, the last axis otherwise.
        rate: q, of whole channels.
        weight: p to start from, between 0 and 1.
    """

    def __init__(self, width: Width, rate: RateLike = 0.5, weight: float = 0.3) -> None:
        super().__init__()
        if not 0 < weight < 1:
            raise ValueError(f"the weight to start from must be between 0 and 1, got {weight}")
        self.rate = Probability(rate)
        self.width = width
        self.logit = nn.Parameter(torch.full((full(width),), weight).logit())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) or (batch, ..., features) -> the same shape."""
        if not self.training or self.rate.now == 0:
            return x
        weight = along_channels(torch.sigmoid(self.logit[: active(self.width)]).to(x.dtype), x)
        return mixture(x, weight, channel_mask(x, self.rate.now))

    def extra_repr(self) -> str:
        return f"rate={self.rate}, width={self.width}"
