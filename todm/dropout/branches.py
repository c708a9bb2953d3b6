"""Dropout of whole residual branches: at a site on the branch, before it is added to its input."""

from torch import Tensor, nn

from todm.dropout.rates import Probability, RateLike
from todm.dropout.standard import bernoulli


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016, arXiv 1603.09382): the branch of each sample is zeroed with probability
    `rate`, the others scaled by 1 / (1 - rate).

    Args:
        rate: Drop probability.
    """

    def __init__(self, rate: RateLike = 0.1) -> None:
        super().__init__()
        self.rate = Probability(rate)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) -> the same shape."""
        rate = self.rate.now
        return x * bernoulli(x, (x.shape[0], *(1,) * (x.ndim - 1)), rate) if self.training and rate else x

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class LayerDrop(nn.Module):
    """LayerDrop (Fan et al. 2020, arXiv 1909.11556): the branch is left out for a whole batch with probability `rate`;
    one that stays is not scaled, because the nets it trains for are those of fewer layers.

    Args:
        rate: Drop probability.
    """

    def __init__(self, rate: RateLike = 0.2) -> None:
        super().__init__()
        self.rate = Probability(rate)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) -> the same shape."""
        rate = self.rate.now
        return x * x.new_empty(()).bernoulli_(1 - rate) if self.training and rate else x

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
