"""A small residual net for super-resolution: the blocks of EDSR (Lim et al. 2017), with elastic channels and depth."""

from dataclasses import field

from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from todm.dropout import Site
from todm.elastic import ElasticConv2d, ElasticStack
from todm.recipe import STRICT
from todm.recipes.annealed_sr.degrade import SCALE
from todm.space import Choice, Width


@dataclass(frozen=True, config=STRICT)
class UpscalerConfig:
    """Sizes of the net."""

    channels: list[int] = field(default_factory=lambda: [8, 12, 16])
    """Options for the channels between the blocks."""
    hidden: list[int] = field(default_factory=lambda: [8, 12, 16])
    """Options for the channels inside each block."""
    depth: list[int] = field(default_factory=lambda: [2, 4, 6])
    """Options for the number of blocks."""


class Block(nn.Module):
    """x + conv(relu(conv(x))) and a place for dropout behind it; (batch, channels, height, width) to the same."""

    def __init__(self, channels: Width, hidden: Choice) -> None:
        super().__init__()
        self.into = ElasticConv2d(channels, hidden, 3, padding=1)
        self.out = ElasticConv2d(hidden, channels, 3, padding=1)
        self.drop = Site("block", width=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x + self.out(F.relu(self.into(x))))


class Upscaler(nn.Module):
    """Luminance (batch, 1, height, width) in 0..1 to (batch, 1, 2 height, 2 width).

    The last convolution gives the four pixels that each pixel becomes, as differences from it.
    """

    def __init__(self, config: UpscalerConfig) -> None:
        super().__init__()
        channels = Choice("channels", config.channels)
        self.head = ElasticConv2d(1, channels, 3, padding=1)
        blocks = [Block(channels, Choice(f"hidden{i}", config.hidden)) for i in range(max(config.depth))]
        self.blocks = ElasticStack(blocks, Choice("depth", config.depth))
        self.drop = Site("last", width=channels)
        self.tail = ElasticConv2d(channels, SCALE**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(x)
        for block in self.blocks:
            features = block(features)
        return F.pixel_shuffle(self.tail(self.drop(features)) + x, SCALE)
