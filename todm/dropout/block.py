"""DropBlock: contiguous regions of a feature map are dropped together (Ghiasi et al. 2018, arXiv 1810.12890).

Where neighbours are alike, a unit dropped alone is filled in from beside it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from todm.dropout.rates import Probability, RateLike


def block_mask(x: Tensor, rate: float, size: int) -> Tensor:
    """1 where a feature map (batch, channels, height, width) is kept; blocks of size x size around their centres are 0.

    Centres lie where a whole block fits, with the paper's density (equation 1): the dropped share is about `rate`.
    """
    height, width = x.shape[2:]
    size = min(size, height, width)
    rows, columns = height - size + 1, width - size + 1
    gamma = rate * height * width / (size**2 * rows * columns)
    corners = torch.empty(x.shape[0], x.shape[1], rows, columns, dtype=x.dtype, device=x.device)
    corners.bernoulli_(min(gamma, 1.0))
    return 1 - F.max_pool2d(F.pad(corners, (size - 1,) * 4), size, stride=1)


class DropBlock(nn.Module):
    """Square blocks of each channel are zeroed, the rest is scaled to the same sum; identity in eval.

    Args:
        rate: Share of the map that is dropped; a schedule that starts at 0, as in the paper, trains better.
        size: Edge of a block.
    """

    def __init__(self, rate: RateLike = 0.1, size: int = 7) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"the edge of a block must be positive, got {size}")
        self.rate = Probability(rate)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the same shape."""
        if not self.training or self.rate.now == 0:
            return x
        mask = block_mask(x, self.rate.now, self.size)
        return x * mask * (mask.numel() / mask.sum().clamp_min(1))

    def extra_repr(self) -> str:
        return f"rate={self.rate}, size={self.size}"
