"""Dropout that shrinks with the sampled width (TODM, arXiv 2309.01947, section 3.3)."""

from torch import Tensor, nn

from todm.dropout.rates import Probability, RateLike
from todm.dropout.standard import dropped
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

    def __init__(self, rate: RateLike, width: Width, shared_axis: int | None = None) -> None:
        super().__init__()
        self.rate = Probability(rate)
        self.width = width
        self.shared_axis = shared_axis

    def probability(self) -> float:
        """The drop probability of the active width now."""
        return adaptive_rate(self.rate.now, self.width)

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> the same shape."""
        return dropped(x, self.probability(), self.shared_axis) if self.training else x

    def extra_repr(self) -> str:
        return f"rate={self.rate}, width={self.width}, shared_axis={self.shared_axis}"

    def plain(self) -> nn.Module:
        """The same dropout at the rate of the active width."""
        return AdaptiveDropout(self.probability(), active(self.width), self.shared_axis)
