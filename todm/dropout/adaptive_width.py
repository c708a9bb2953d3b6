"""Dropout that shrinks with the sampled width (TODM, arXiv 2309.01947, section 3.3)."""

import torch
from torch import Tensor, nn

from todm.space import Width, active, full


def adaptive_rate(rate: float, width: Width) -> float:
    """`rate * active width / full width`: a narrow subnet has less capacity, so it needs less noise."""
    return rate * active(width) / full(width)


class AdaptiveDropout(nn.Module):
    """Inverted dropout at `rate` for the largest net and proportionally less for a narrower one; identity in eval.

    Args:
        rate: Drop probability at full width.
        width: The elastic width it is tied to.
        shared_axis: Axis along which one mask is shared, e.g. 1 (time) of (batch, time, features): cheaper, and
            a feature is dropped for a whole utterance.

    Raises:
        ValueError: `rate` is not in [0, 1).
    """

    def __init__(self, rate: float, width: Width, shared_axis: int | None = None) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
        self.rate = rate
        self.width = width
        self.shared_axis = shared_axis

    def forward(self, x: Tensor) -> Tensor:
        rate = adaptive_rate(self.rate, self.width)
        if not self.training or rate == 0:
            return x
        shape = list(x.shape)
        if self.shared_axis is not None:
            shape[self.shared_axis] = 1
        return x * torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - rate).div_(1 - rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, width={self.width}"

    def plain(self) -> nn.Module:
        """The same dropout at the rate of the active width."""
        return AdaptiveDropout(adaptive_rate(self.rate, self.width), active(self.width), self.shared_axis)
