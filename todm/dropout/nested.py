"""Nested dropout of features: the first ones always survive (Rippel, Gelbart & Adams 2014, arXiv 1402.0915)."""

import torch
from torch import Tensor, nn

from todm.dropout.rates import Probability, RateLike
from todm.dropout.site import channel_axis


class NestedDropout(nn.Module):
    """Of each sample the first b features stay and the others are zeroed, b geometric: P(b > k) = (1 - rate)^k.

    Features are thereby ordered by importance, which is what a width cut to its first units wants. Nothing is scaled.

    Args:
        rate: Probability that the features end after each one; about the share of a net of 1 / rate features.
    """

    def __init__(self, rate: RateLike = 0.01) -> None:
        super().__init__()
        self.rate = Probability(rate)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) or (batch, ..., features) -> the same shape."""
        if not self.training or self.rate.now == 0:
            return x
        axis = channel_axis(x)
        last = torch.empty(x.shape[0], 1, device=x.device).geometric_(self.rate.now)
        mask = torch.arange(x.shape[axis], device=x.device) < last  # (batch, features)
        shape = [1] * x.ndim
        shape[0], shape[axis] = mask.shape
        return x * mask.reshape(shape)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
