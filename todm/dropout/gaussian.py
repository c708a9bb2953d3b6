"""Gaussian dropout (Srivastava et al. 2014, section 10): noise with the mean and variance of dropout's."""

import torch
from torch import Tensor, nn

from todm.dropout.rates import Probability, RateLike


class GaussianDropout(nn.Module):
    """x (1 + sqrt(rate / (1 - rate)) e), e ~ N(0, 1); identity in eval.

    Args:
        rate: Drop probability of the dropout whose variance it has.
    """

    def __init__(self, rate: RateLike = 0.5) -> None:
        super().__init__()
        self.rate = Probability(rate)

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> the same shape."""
        rate = self.rate.now
        return x * (1 + torch.randn_like(x) * (rate / (1 - rate)) ** 0.5) if self.training and rate else x

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
