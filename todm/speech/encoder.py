"""Streaming encoder of state-space and attention layers: 80 log-mel bins every 10 ms in, a vector every 40 ms out."""

import math
from dataclasses import field
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from todm.dropout import Site
from todm.elastic import ElasticLayerNorm, ElasticLinear, ElasticStack
from todm.once import Once
from todm.recipe import STRICT, Count
from todm.space import Choice, Width
from todm.speech.attention import WindowAttention
from todm.speech.features import BINS
from todm.speech.ssm import MultiHeadSSM

SUBSAMPLING = 4

Options = Annotated[list[Count], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class EncoderConfig:
    """Sizes of the encoder. A list with several values is an axis of the search space."""

    width: Options = field(default_factory=lambda: [64])
    """Channels between blocks."""
    depth: Options = field(default_factory=lambda: [1, 2, 3, 4, 5, 6])
    """Number of blocks; the first ones are kept."""
    hidden: Options = field(default_factory=lambda: [64, 128, 192, 256])
    """Width of the feed-forward layers, chosen for each block by itself."""
    heads: Options = field(default_factory=lambda: [8])
    """State-space heads, even numbers."""
    head_size: Count = 8
    """Channels of a head."""
    states: Options = field(default_factory=lambda: [16])
    """Complex modes of a head's recurrence."""
    attention_every: NonNegativeInt = 0
    """Every n-th block attends to the recent past instead of filtering all of it; 0: none does."""
    attention_heads: Options = field(default_factory=lambda: [4])
    """Heads of those blocks."""
    attention_head_size: Count = 16
    """Channels of such a head."""
    attention_left: Count = 50
    """Past vectors, of 40 ms each, that such a block sees; a device keeps as many in its cache."""
    front: Count = 48
    """Channels between the two subsampling layers."""

    def __post_init__(self) -> None:
        if self.head_size % 2 or any(heads % 2 for heads in self.heads):
            raise ValueError("heads and head_size must be even: heads gate each other in pairs")


def axis(name: str, options: list[int]) -> Width:
    """A choice if there is anything to choose, else the only option."""
    return Choice(name, options) if len(options) > 1 else options[0]


def with_previous(x: Tensor, previous: Tensor) -> Tensor:
    """What a causal convolution of kernel 3 and stride 2 sees, one row an output.

    Args:
        x: (batch, time, features), time even.
        previous: (batch, 1, features), the frame before the first.

    Returns:
        (batch, time / 2, 3 * features)
    """
    batch, time, features = x.shape
    pairs = x.reshape(batch, time // 2, 2 * features)
    before = torch.cat([previous, pairs[:, :-1, features:]], dim=1)
    return torch.cat([before, pairs], dim=2)


class Block(nn.Module):
    """A pre-norm layer that mixes frames and a pre-norm feed-forward layer, each added to its input.

    Args:
        mixer: (batch, time, width) -> the same, causal: a multi-head state-space layer, or streaming attention.
    """

    def __init__(self, mixer: nn.Module, width: Width, hidden: Width) -> None:
        super().__init__()
        self.norm_mixer = ElasticLayerNorm(width)
        self.mixer = mixer
        self.norm_feed_forward = ElasticLayerNorm(width)
        self.up = ElasticLinear(width, hidden)
        self.drop = Site("feed_forward", width=hidden, shared_axis=1, source_width=width)
        self.down = ElasticLinear(hidden, width)

    def feed_forward(self, x: Tensor) -> Tensor:
        source = self.norm_feed_forward(x)
        preactivation = self.up(source)
        return self.down(self.drop(F.silu(preactivation), preactivation, source))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm_mixer(x))
        return x + self.feed_forward(x)


class Encoder(nn.Module):
    """Subsampling by 4, a stack of blocks, a last norm and the projection to the joiner; causal throughout.

    Args:
        config: Sizes.
        size_out: Width of the output, fixed.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: EncoderConfig, size_out: int) -> None:
        super().__init__()
        width, depth = axis("width", config.width), Choice("depth", config.depth)
        heads, states = axis("heads", config.heads), axis("states", config.states)
        attending = axis("attention_heads", config.attention_heads)
        self.register_buffer("feature_mean", torch.zeros(BINS))
        self.register_buffer("feature_scale", torch.ones(BINS))
        self.front_in = ElasticLinear(3 * BINS, config.front)
        self.front_out = ElasticLinear(3 * config.front, width)
        # The longest beginning that has no choice in it: all nets of a family compute it alike.
        if any(isinstance(size, Choice) for size in (width, heads, states, attending)):
            begin = "halve" if isinstance(width, Choice) else "subsample"
        else:
            begin = "subsample_and_mix"
        setattr(self, begin, Once(getattr(self, begin)))

        def mixer(index: int) -> nn.Module:
            if config.attention_every and (index + 1) % config.attention_every == 0:
                return WindowAttention(width, attending, config.attention_head_size, config.attention_left)
            return MultiHeadSSM(width, heads, config.head_size, states)

        blocks = [Block(mixer(i), width, axis(f"hidden{i}", config.hidden)) for i in range(depth.full)]
        self.blocks = ElasticStack(blocks, depth)
        self.norm = ElasticLayerNorm(width)
        self.project = ElasticLinear(width, size_out)
        self._initialise(depth.full)

    def _initialise(self, depth: int) -> None:
        """Small residual branches, so that a deep stack starts as a shallow one; no parameter exactly zero,
        because ScaledAdam moves each in proportion to its size."""
        for name, parameter in self.named_parameters():
            if name.endswith(("mixer.out.weight", "down.weight")):
                parameter.data.mul_(1 / math.sqrt(2 * depth))
            elif name.endswith("bias"):
                nn.init.uniform_(parameter, -0.05, 0.05)

    def set_statistics(self, features: Tensor) -> None:
        """Take mean and deviation of each bin from typical features (frames, bins)."""
        self.feature_mean.copy_(features.mean(0))
        self.feature_scale.copy_(1 / features.std(0).clamp_min(1e-3))

    def halve(self, features: Tensor) -> Tensor:
        """(batch, time, 80) -> (batch, 2 ceil(time / 4), front)."""
        x = (features - self.feature_mean) * self.feature_scale
        x = F.pad(x, (0, 0, 0, -x.shape[1] % SUBSAMPLING))
        return F.silu(self.front_in(with_previous(x, torch.zeros_like(x[:, :1]))))

    def subsample(self, features: Tensor) -> Tensor:
        """(batch, time, 80) -> (batch, ceil(time / 4), width), what the first block takes."""
        x = self.halve(features)
        return F.silu(self.front_out(with_previous(x, torch.zeros_like(x[:, :1]))))

    def subsample_and_mix(self, features: Tensor) -> Tensor:
        """(batch, time, 80) -> (batch, ceil(time / 4), width), the input of the first block's feed-forward layer."""
        first, x = next(iter(self.blocks)), self.subsample(features)
        assert isinstance(first, Block)
        return x + first.mixer(first.norm_mixer(x))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, time, 80) -> (batch, ceil(time / 4), size out)."""
        first, *others = self.blocks
        assert isinstance(first, Block)
        x = self.subsample_and_mix(features)
        x = x + first.feed_forward(x)
        for block in others:
            x = block(x)
        return self.project(self.norm(x))


def subsampled(lengths: Tensor) -> Tensor:
    """Number of encoder outputs for a number of feature frames."""
    return (lengths + SUBSAMPLING - 1) // SUBSAMPLING
