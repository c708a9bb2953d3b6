"""Dropout of whole channels (Tompson et al. 2015, arXiv 1411.4280)."""

import torch
from torch import Tensor, nn

from todm.dropout.rates import Probability, RateLike
from todm.dropout.site import channel_axis
from todm.dropout.standard import bernoulli


def channel_mask(x: Tensor, rate: float) -> Tensor:
    """An inverted mask for each channel of each sample: (batch, channels, 1, 1) for images, (batch, 1, ..., features)
    for sequences."""
    shape = [1] * x.ndim
    shape[0], shape[channel_axis(x)] = x.shape[0], x.shape[channel_axis(x)]
    return bernoulli(x, shape, rate)


class SpatialDropout(nn.Module):
    """Whole channels are zeroed with probability `rate`, the others scaled by 1 / (1 - rate): what `nn.Dropout2d` does
    to images (batch, channels, height, width), and to sequences (batch, ..., features) over all positions.

    Args:
        rate: Drop probability.
    """

    def __init__(self, rate: RateLike = 0.5) -> None:
        super().__init__()
        self.rate = Probability(rate)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) -> the same shape."""
        if not self.training or self.rate.now == 0:
            return x
        if x.ndim == 4:
            return torch.nn.functional.dropout2d(x, self.rate.now)
        return x * channel_mask(x, self.rate.now)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
