"""Streaming self-attention: each frame looks at itself and a bounded past, so that a device needs a bounded cache."""

import math

import torch
from torch import Tensor, nn

from todm.dropout import Site
from todm.elastic.linear import ElasticLinear, copied
from todm.space import Width, active, full
from todm.speech.ssm import toeplitz

NEVER = -1e4
"""Added to a score, it leaves a weight of exactly zero in float32; unlike minus infinity, it survives quantisation."""


class WindowAttention(nn.Module):
    """Multi-head attention over the last `left` frames and the present one, with a learnt bias for each distance.

    The biases (Shaw et al. 2018; Raffel et al. 2020, T5) are all it knows of positions, so that it gives the same for
    a whole utterance and for any cut of it into chunks. (batch, time, width) -> (batch, time, width).

    Args:
        width: Of input and output.
        heads: Number of heads.
        head_size: Channels per head.
        left: Past frames that a frame sees.
    """

    def __init__(self, width: Width, heads: Width, head_size: int, left: int) -> None:
        super().__init__()
        self.heads, self.head_size, self.left = heads, head_size, left
        inner = heads * head_size
        self.query, self.key = ElasticLinear(width, inner), ElasticLinear(width, inner)
        self.value, self.out = ElasticLinear(width, inner), ElasticLinear(inner, width)
        self.drop = Site("attention")
        self.bias = nn.Parameter(0.02 * torch.randn(full(heads), left + 1))

    def band(self, time: int) -> Tensor:
        """What is added to the scores of whole utterances: (heads, time, time)."""
        bias = self.bias[: active(self.heads)]
        return toeplitz(torch.cat([bias, bias.new_full((len(bias), time), NEVER)], dim=1)[:, :time], NEVER)

    def chunk_band(self, length: int) -> Tensor:
        """The same where `left` cached frames stand before a chunk of `length`: (heads, length, left + length)."""
        bias = self.bias[: active(self.heads)]
        distance = self.left + torch.arange(length)[:, None] - torch.arange(self.left + length)[None]
        seen = (distance >= 0) & (distance <= self.left)
        return bias[:, distance.clamp(0, self.left)].masked_fill(~seen, NEVER)

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], active(self.heads), self.head_size)
        query, key, value = (layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_size) + self.band(x.shape[1]).unsqueeze(0)
        weights = self.drop(scores.softmax(-1))
        return self.out((weights @ value).transpose(1, 2).flatten(-2))

    def plain(self) -> "WindowAttention":
        """With the biases of the active heads; its projections have been made plain before."""
        self.bias = copied(self.bias[: active(self.heads)])
        return self
