"""Inverted dropout (Srivastava et al. 2014, jmlr.org/papers/v15/srivastava14a.html)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from todm.dropout.rates import Probability, RateLike


def bernoulli(x: Tensor, shape: Sequence[int], rate: float) -> Tensor:
    """Bernoulli(1 - rate) / (1 - rate) of a shape, with the type and device of `x`; zero if the rate is 1."""
    if x.device.type == "cpu":
        mask = _kept(shape, rate).to(x.dtype)
    else:
        mask = torch.empty(tuple(shape), dtype=x.dtype, device=x.device).bernoulli_(1 - rate)
    return mask.div_(1 - rate) if rate < 1 else mask


def _kept(shape: Sequence[int], rate: float) -> Tensor:
    """True with probability 1 - rate, to the nearest 2^-16: four values of one random number, which is five times as
    fast as torch's Bernoulli on a CPU, where dropout's random numbers are a good part of a training step."""
    count, threshold = math.prod(shape), round(rate * 2**16)
    if threshold == 2**16:
        return torch.zeros(tuple(shape), dtype=torch.bool)
    numbers = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return (numbers.view(torch.int16)[:count] >= threshold - 2**15).view(*shape)


def dropped(x: Tensor, rate: float, shared_axis: int | None = None) -> Tensor:
    """`x` with each value zeroed with probability `rate` and the others scaled by 1 / (1 - rate); with `shared_axis`,
    alike along that axis."""
    if rate == 0:
        return x
    if shared_axis is None and x.device.type != "cpu":
        return F.dropout(x, rate)
    shape = list(x.shape)
    if shared_axis is not None:
        shape[shared_axis] = 1
    return x * bernoulli(x, shape, rate)


class StandardDropout(nn.Module):
    """Each value is zeroed with probability `rate`, the others scaled by 1 / (1 - rate); identity in eval.

    Args:
        rate: Drop probability.
        shared_axis: Axis along which one mask is shared, e.g. 1 (time) of (batch, time, features).
    """

    def __init__(self, rate: RateLike = 0.5, shared_axis: int | None = None) -> None:
        super().__init__()
        self.rate = Probability(rate)
        self.shared_axis = shared_axis

    def probability(self) -> float:
        """The drop probability now."""
        return self.rate.now

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> the same shape."""
        return dropped(x, self.rate.now, self.shared_axis) if self.training else x

    def extra_repr(self) -> str:
        return f"rate={self.rate}, shared_axis={self.shared_axis}"
