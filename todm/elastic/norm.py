"""Normalisations over an elastic width. None keeps running statistics, so no subnet needs recalibration."""

from torch import Tensor, nn
from torch.nn import functional as F

from todm.elastic.linear import copied
from todm.space import Width, active, full


class ElasticLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` over the active part of the last axis: (..., active width)."""

    def __init__(self, width: Width, eps: float = 1e-5) -> None:
        super().__init__(full(width), eps)
        self.width = width

    def forward(self, input: Tensor) -> Tensor:
        size = active(self.width)
        return F.layer_norm(input, (size,), self.weight[:size], self.bias[:size], self.eps)

    def plain(self) -> nn.LayerNorm:
        """The active part as an `nn.LayerNorm`."""
        size = active(self.width)
        norm = nn.LayerNorm(size, self.eps, device="meta")
        norm.weight, norm.bias = copied(self.weight[:size]), copied(self.bias[:size])
        return norm


class ElasticRMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` over the active part of the last axis: (..., active width)."""

    def __init__(self, width: Width, eps: float = 1e-6) -> None:
        super().__init__(full(width), eps)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        size = active(self.width)
        return F.rms_norm(x, (size,), self.weight[:size], self.eps)

    def plain(self) -> nn.RMSNorm:
        """The active part as an `nn.RMSNorm`."""
        size = active(self.width)
        norm = nn.RMSNorm(size, self.eps, device="meta")
        norm.weight = copied(self.weight[:size])
        return norm


class ElasticGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` over elastic channels in groups of a constant size: (batch, active channels, ...).

    Raises:
        ValueError: an option of the width is not a multiple of `group_size`.
    """

    def __init__(self, channels: Width, group_size: int, eps: float = 1e-5) -> None:
        for size in (channels,) if isinstance(channels, int) else channels.options:
            if size % group_size:
                raise ValueError(f"{size} channels cannot be split into groups of {group_size}")
        super().__init__(full(channels) // group_size, full(channels), eps)
        self.channels = channels
        self.group_size = group_size

    def forward(self, input: Tensor) -> Tensor:
        size = active(self.channels)
        return F.group_norm(input, size // self.group_size, self.weight[:size], self.bias[:size], self.eps)

    def plain(self) -> nn.GroupNorm:
        """The active part as an `nn.GroupNorm`."""
        size = active(self.channels)
        norm = nn.GroupNorm(size // self.group_size, size, self.eps, device="meta")
        norm.weight, norm.bias = copied(self.weight[:size]), copied(self.bias[:size])
        return norm
