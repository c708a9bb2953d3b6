"""A small pre-norm transformer with elastic width, depth, heads and hidden sizes, shared by the recipes on text."""

from dataclasses import field

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from todm.dropout import Site
from todm.elastic import ElasticEmbedding, ElasticLayerNorm, ElasticLinear, ElasticStack, MultiheadAttention
from todm.recipe import STRICT, Count
from todm.space import Choice, Width


@dataclass(frozen=True, config=STRICT)
class TransformerConfig:
    """Sizes of a transformer; each list holds the options of a choice, one value fixes it."""

    width: list[Count] = field(default_factory=lambda: [64, 96, 128])
    """Channels of the residual stream."""
    depth: list[Count] = field(default_factory=lambda: [1, 2])
    """Layers."""
    heads: list[Count] = field(default_factory=lambda: [2, 4])
    """Attention heads of each layer."""
    head_size: Count = 32
    """Channels per head."""
    hidden: list[Count] = field(default_factory=lambda: [128, 256, 512])
    """Units of each feed-forward layer."""


class Block(nn.Module):
    """x + attention(norm(x)), then the same with a feed-forward layer (Vaswani et al. 2017, pre-norm).

    Dropout sites: `attention` (weights), `feed_forward` (hidden units), `residual` (what a branch adds).
    """

    def __init__(self, width: Width, heads: Choice, head_size: int, hidden: Choice, causal: bool) -> None:
        super().__init__()
        self.attention_norm = ElasticLayerNorm(width)
        self.attention = MultiheadAttention(width, heads, head_size, causal)
        self.attended = Site("residual", width)
        self.norm = ElasticLayerNorm(width)
        self.up = ElasticLinear(width, hidden)
        self.drop = Site("feed_forward", hidden, source_width=width)
        self.down = ElasticLinear(hidden, width)
        self.added = Site("residual", width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, time, width) -> the same; `mask` (batch, time) is true where a position may be attended to."""
        x = x + self.attended(self.attention(self.attention_norm(x), mask))
        source = self.norm(x)
        preactivation = self.up(source)
        hidden = self.drop(F.gelu(preactivation), preactivation=preactivation, source=source)
        return x + self.added(self.down(hidden))


class Transformer(nn.Module):
    """Symbols (batch, time) -> normalised states (batch, time, width). A further dropout site: `embedding`.

    Args:
        config: Sizes.
        symbols: Number of different symbols.
        context: Longest sequence.
        causal: Whether a position sees only itself and what came before.
    """

    positions: Tensor

    def __init__(self, config: TransformerConfig, symbols: int, context: int, causal: bool) -> None:
        super().__init__()
        self.width = Choice("width", config.width)
        self.symbol = ElasticEmbedding(symbols, self.width)
        self.position = ElasticEmbedding(context, self.width)
        for embedding in (self.symbol, self.position):
            nn.init.normal_(embedding.weight, std=0.1)
        self.register_buffer("positions", torch.arange(context), persistent=False)
        self.embedded = Site("embedding", self.width)
        blocks = [
            Block(self.width, Choice(f"heads{i}", config.heads), config.head_size,
                  Choice(f"hidden{i}", config.hidden), causal)
            for i in range(max(config.depth))
        ]  # fmt: skip
        self.blocks = ElasticStack(blocks, Choice("depth", config.depth))
        self.norm = ElasticLayerNorm(self.width)

    def forward(self, symbols: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` (batch, time) is true where there is a symbol and not padding."""
        x = self.embedded(self.symbol(symbols) + self.position(self.positions[: symbols.shape[1]]))
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)
