"""Multi-head self-attention whose number of heads is a choice."""

import math

import torch
from torch import Tensor, nn

from todm.dropout.site import Site
from todm.elastic.linear import ElasticLinear
from todm.space import Width, active


class MultiheadAttention(nn.Module):
    """Self-attention over (batch, time, width) that uses the first heads (Vaswani et al. 2017, section 3.2).

    Dropout site `attention`: the attention weights (batch, heads, time, time).

    The softmax is written out: fused attention does not lower to every on-device runtime.

    Args:
        width: Of input and output.
        heads: Number of heads.
        head_size: Channels per head, constant.
        causal: Whether a position sees only itself and what came before.
    """

    def __init__(self, width: Width, heads: Width, head_size: int, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = head_size
        self.causal = causal
        inner = heads * head_size
        self.query = ElasticLinear(width, inner)
        self.key = ElasticLinear(width, inner)
        self.value = ElasticLinear(width, inner)
        self.out = ElasticLinear(inner, width)
        self.drop = Site("attention", width=heads)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (active(self.heads), self.head_size)).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, time, width) -> the same; `mask` (batch, time) is true where a position may be attended to."""
        query, key, value = (self._split(project(x)) for project in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_size)
        if self.causal:
            time = x.shape[1]
            future = torch.ones(time, time, dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        weights = self.drop(scores.softmax(-1))
        return self.out((weights @ value).transpose(1, 2).flatten(-2))
