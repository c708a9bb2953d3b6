"""The encoder as a device runs it: a chunk of frames and the states in, vectors and the new states out."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from todm.space import active
from todm.speech.attention import NEVER, WindowAttention
from todm.speech.encoder import SUBSAMPLING, Block, Encoder, with_previous
from todm.speech.ssm import MultiHeadSSM


class ChunkMixer(nn.Module):
    """A multi-head state-space layer over one chunk, with its matrices computed once.

    Args:
        mixer: An extracted layer.
        length: Frames per chunk.
    """

    inputs: Tensor
    readout: Tensor
    decay_real: Tensor
    decay_imag: Tensor

    def __init__(self, mixer: MultiHeadSSM, length: int) -> None:
        super().__init__()
        self.into, self.out = mixer.into, mixer.out
        self.heads, self.head_size, self.length = int(mixer.heads), mixer.head_size, length
        with torch.no_grad():
            parts = mixer.ssm.chunk_matrices(length)
        self.modes = parts["readout"].shape[1]
        self.register_buffer("inputs", torch.cat([parts["direct"].transpose(1, 2), parts["write"]], 2).contiguous())
        self.register_buffer("readout", parts["readout"].contiguous())
        self.register_buffer("decay_real", parts["decay_real"][:, None].contiguous())
        self.register_buffer("decay_imag", parts["decay_imag"][:, None].contiguous())

    @property
    def state_size(self) -> int:
        """Numbers carried from chunk to chunk."""
        return self.heads * self.head_size * self.modes

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, length, width) and (batch, state size) -> the same shapes."""
        heads, size, length, modes = self.heads, self.head_size, self.length, self.modes
        u = self.into(x).reshape(-1, length, heads, size).permute(2, 0, 3, 1).reshape(heads, -1, length)
        s = state.reshape(-1, heads, size, modes).permute(1, 0, 2, 3).reshape(heads, -1, modes)
        driven = torch.bmm(u, self.inputs)
        y = driven[:, :, :length] + torch.bmm(s, self.readout)
        rotated = torch.cat([s[:, :, modes // 2 :], s[:, :, : modes // 2]], dim=2)
        s = s * self.decay_real + rotated * self.decay_imag + driven[:, :, length:]
        # Pairs of heads gate each other; slices of step 1, because others do not lower to every runtime.
        pairs = y.reshape(heads // 2, 2, -1, length)
        gated = pairs[:, 0:1] * torch.sigmoid(pairs[:, 1:2])
        gated = gated.reshape(heads // 2, -1, size, length).permute(1, 3, 0, 2)
        state = s.reshape(heads, -1, size, modes).permute(1, 0, 2, 3).reshape(-1, heads * size * modes)
        return self.out(gated.reshape(-1, length, heads // 2 * size)), state


class ChunkAttention(nn.Module):
    """A streaming attention layer over one chunk, with the keys and values of the past frames as its state.

    The state holds for each cached frame its key, its value, and whether it is one at all: zeros are an empty cache.

    Args:
        attention: An extracted layer.
        length: Frames per chunk.
    """

    band: Tensor
    present: Tensor

    def __init__(self, attention: WindowAttention, length: int) -> None:
        super().__init__()
        self.query, self.out = attention.query, attention.out
        self.key, self.value = attention.key, attention.value
        self.heads, self.head_size = active(attention.heads), attention.head_size
        self.length, self.left = length, attention.left
        with torch.no_grad():
            self.register_buffer("band", attention.chunk_band(length).unsqueeze(0))
        self.register_buffer("present", torch.ones(1, length, 1))

    @property
    def state_size(self) -> int:
        """Numbers carried from chunk to chunk."""
        return self.left * (2 * self.heads * self.head_size + 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, length, width) and (batch, state size) -> the same shapes."""
        heads, size, inner, seen = self.heads, self.head_size, self.heads * self.head_size, self.left + self.length
        now = torch.cat([self.key(x), self.value(x), self.present.expand(x.shape[0], -1, -1)], dim=2)
        cache = torch.cat([state.reshape(-1, self.left, 2 * inner + 1), now], dim=1)
        key = cache[:, :, :inner].reshape(-1, seen, heads, size).permute(0, 2, 3, 1).reshape(-1, size, seen)
        value = cache[:, :, inner : 2 * inner].reshape(-1, seen, heads, size)
        value = value.permute(0, 2, 1, 3).reshape(-1, seen, size)
        query = self.query(x).reshape(-1, self.length, heads, size).permute(0, 2, 1, 3).reshape(-1, self.length, size)
        scores = torch.bmm(query * (1 / math.sqrt(size)), key).reshape(-1, heads, self.length, seen)
        empty = (1 - cache[:, :, 2 * inner :].reshape(-1, 1, 1, seen)) * NEVER
        weights = (scores + self.band + empty).softmax(-1).reshape(-1, self.length, seen)
        mixed = torch.bmm(weights, value).reshape(-1, heads, self.length, size).permute(0, 2, 1, 3)
        state = cache[:, self.length :].reshape(-1, self.state_size)
        return self.out(mixed.reshape(-1, self.length, inner)), state


def chunked(mixer: nn.Module, length: int) -> ChunkMixer | ChunkAttention:
    """The form that works chunk by chunk of a layer that mixes frames."""
    if isinstance(mixer, WindowAttention):
        return ChunkAttention(mixer, length)
    assert isinstance(mixer, MultiHeadSSM)
    return ChunkMixer(mixer, length)


class StreamingEncoder(nn.Module):
    """An extracted encoder over chunks, with two packed states that start at zero.

    `state0` (1, batch, K0) holds the states of the layers that mix frames, `state1` (1, batch, K1) the last frame
    before each of the two subsampling layers: the layout that streaming runtimes expect of a recurrent encoder.

    Args:
        encoder: An extracted encoder, in eval mode.
        frames: Feature frames per chunk, a multiple of 4.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, encoder: Encoder, frames: int) -> None:
        super().__init__()
        if frames % SUBSAMPLING:
            raise ValueError(f"a chunk must be a multiple of {SUBSAMPLING} frames, not {frames}")
        self.frames = frames
        self.register_buffer("mean", encoder.feature_mean.reshape(1, 1, -1).clone())
        self.register_buffer("scale", encoder.feature_scale.reshape(1, 1, -1).clone())
        self.front_in, self.front_out = encoder.front_in, encoder.front_out
        blocks = [block for block in encoder.blocks if isinstance(block, Block)]
        self.blocks = nn.ModuleList(blocks)
        self.mixers = nn.ModuleList(chunked(block.mixer, frames // SUBSAMPLING) for block in blocks)
        self.norm, self.project = encoder.norm, encoder.project
        self.bins, self.front = len(encoder.feature_mean), self.front_out.in_features // 3

    @property
    def state_sizes(self) -> tuple[int, int]:
        """K0 and K1."""
        return sum(mixer.state_size for mixer in self.mixers), self.bins + self.front  # type: ignore[misc]

    def forward(self, x: Tensor, state0: Tensor, state1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, frames, 80) -> (batch, frames / 4, size out), and the states."""
        bins = self.bins
        x = (x - self.mean) * self.scale
        before_in, before_out = state1[:, :, :bins].reshape(-1, 1, bins), state1[:, :, bins:].reshape(-1, 1, self.front)
        last_in = x[:, -1:]
        x = F.silu(self.front_in(with_previous(x, before_in)))
        last_out = x[:, -1:]
        x = F.silu(self.front_out(with_previous(x, before_out)))
        states, offset = [], 0
        for block, mixer in zip(self.blocks, self.mixers, strict=True):
            assert isinstance(block, Block)
            assert isinstance(mixer, ChunkMixer | ChunkAttention)
            state = state0[:, :, offset : offset + mixer.state_size].reshape(-1, mixer.state_size)
            offset += mixer.state_size
            mixed, state = mixer(block.norm_mixer(x), state)
            x = x + mixed
            x = x + block.feed_forward(x)
            states.append(state)
        state0 = torch.cat(states, dim=1).reshape(1, -1, offset)
        state1 = torch.cat([last_in, last_out], dim=2).reshape(1, -1, bins + self.front)
        return self.project(self.norm(x)), state0, state1
