"""Multi-head diagonal state-space layer (S4D) in real arithmetic.

Gu et al. 2022 (S4D, arXiv 2206.11893) for the recurrence; Fathullah et al. 2023 (MH-SSM, arXiv 2305.12498) for heads
and inter-head gating. One recurrence a head, shared by the head's channels:
`x' = dA x + dB u`, `y = 2 Re(C x) + D u`, with A = -exp(log_A_real) + i A_imag, dA = exp(dt A), dB = (dA - 1) / A.
"""

import math

import torch
from torch import Tensor, nn

from todm.elastic.linear import ElasticLinear, copied
from todm.once import Once
from todm.space import Width, active, full

ONCE = -50.0
"""Decay of a mode that is heard in its first frame alone: 2e-22 of it is left in the next."""


def toeplitz(kernel: Tensor, future: float = 0.0) -> Tensor:
    """Matrices that hold `kernel` (heads, length) by distance into the past, and `future` above the diagonal.

    Returns:
        (heads, length, length), out[h, t, s] = kernel[h, t - s] for s <= t.
    """
    return shifted(first_row(kernel, future))


def first_row(kernel: Tensor, future: float = 0.0) -> Tensor:
    """Row 0 of those matrices, prolonged to the left by the past, and read around: (heads, 2 length)."""
    return torch.cat([kernel[:, :1], torch.full_like(kernel, future), kernel[:, 1:].flip(1)], dim=1)


def shifted(row: Tensor) -> Tensor:
    """The matrices of a `first_row`. Row t is row 0 shifted right by t: repeat it and read with a period of 1 less."""
    heads, length = row.shape[0], row.shape[1] // 2
    rows = row[:, None].expand(-1, length, -1).reshape(heads, -1)[:, : length * (2 * length - 1)]
    return rows.view(heads, length, 2 * length - 1)[:, :, :length]


Size = tuple[int, int]
"""Heads and states."""


class DiagonalSSM(nn.Module):
    """S4D kernels, one a head. Complex numbers are pairs of real tensors, so that every runtime can run them.

    Methods take the active heads and states unless given others.

    Args:
        heads: Number of recurrences.
        states: Complex modes of each (conjugate pairs are folded into the factor 2).
    """

    def __init__(self, heads: Width, states: Width) -> None:
        super().__init__()
        self.heads, self.states = heads, states
        h, n = full(heads), full(states)
        # Time constants from 4 to 100 frames, interleaved so that the first heads alone cover the range.
        steps = torch.logspace(math.log10(0.5), math.log10(0.02), h)
        order = sorted(range(h), key=lambda i: int(f"{i:032b}"[::-1], 2))
        self.log_dt = nn.Parameter(steps[order].log())
        self.log_A_real = nn.Parameter(torch.full((h, n), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(n).float().repeat(h, 1))
        self.C = nn.Parameter(torch.randn(h, n, 2) * math.sqrt(0.5))
        self.D = nn.Parameter(torch.ones(h))

    def _used(self, size: Size | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """dt A and C, real and imaginary part, each (heads, states)."""
        h, n = size or (active(self.heads), active(self.states))
        dt = self.log_dt[:h, None].exp()
        a_real, a_imag = -self.log_A_real[:h, :n].exp(), self.A_imag[:h, :n]
        return dt * a_real, dt * a_imag, self.C[:h, :n, 0], self.C[:h, :n, 1]

    def powers(self, exponents: Tensor, size: Size | None = None) -> tuple[Tensor, Tensor]:
        """dA to integer powers (length,): real and imaginary part, each (heads, states, length)."""
        real, imag, _, _ = self._used(size)
        radius = torch.exp(real[..., None] * exponents)
        angle = imag[..., None] * exponents
        return radius * angle.cos(), radius * angle.sin()

    def input_gain(self, size: Size | None = None) -> tuple[Tensor, Tensor]:
        """dB: real and imaginary part, each (heads, states)."""
        h, n = size or (active(self.heads), active(self.states))
        power_real, power_imag = self.powers(torch.ones(1, dtype=self.D.dtype, device=self.D.device), size)
        x, y = power_real[..., 0] - 1, power_imag[..., 0]
        a_real, a_imag = -self.log_A_real[:h, :n].exp(), self.A_imag[:h, :n]
        norm = a_real.square() + a_imag.square()
        return (x * a_real + y * a_imag) / norm, (y * a_real - x * a_imag) / norm

    def kernel(self, length: int, size: Size | None = None) -> Tensor:
        """The impulse response without the direct term D: (heads, length)."""
        _, _, c_real, c_imag = self._used(size)
        b_real, b_imag = self.input_gain(size)
        gain_real, gain_imag = c_real * b_real - c_imag * b_imag, c_real * b_imag + c_imag * b_real
        power_real, power_imag = self.powers(torch.arange(length, dtype=self.D.dtype, device=self.D.device), size)
        return 2 * (gain_real[..., None] * power_real - gain_imag[..., None] * power_imag).sum(1)

    def modes(self) -> dict[str, Tensor]:
        """The kernel, D included, as a sum over modes of `exp(decay t + loudness) cos(pitch t + phase)`, t in frames.

        With G = C dB, a mode's part 2 Re(G exp(dt A t)) is that with loudness log(2 |G|) and phase arg(G). D is a mode
        of its own, heard in the first frame alone.

        Returns:
            decay, loudness, pitch and phase, each (heads, states + 1, 1).
        """
        decay, pitch, c_real, c_imag = self._used(None)
        b_real, b_imag = self.input_gain()
        direct = self.D[: active(self.heads), None]
        real = torch.cat([2 * (c_real * b_real - c_imag * b_imag), direct], 1)
        imag = torch.cat([2 * (c_real * b_imag + c_imag * b_real), torch.zeros_like(direct)], 1)
        found = {
            "decay": torch.cat([decay, torch.full_like(direct, ONCE)], 1),
            "loudness": torch.hypot(real, imag).clamp_min(1e-30).log(),
            "pitch": torch.cat([pitch, torch.zeros_like(direct)], 1),
            "phase": torch.atan2(imag, real),
        }
        return {name: value.unsqueeze(-1).contiguous() for name, value in found.items()}

    def toeplitz(self, length: int, size: Size | None = None) -> Tensor:
        """The causal convolution with the kernel, D included, as a matrix: (heads, out time, in time)."""
        kernel = self.kernel(length, size)
        kernel = torch.cat([kernel[:, :1] + self.D[: len(kernel), None], kernel[:, 1:]], dim=1)
        return toeplitz(kernel)

    def chunk_matrices(self, length: int) -> dict[str, Tensor]:
        """The layer as matrix products over chunks of `length` frames, with the state carried between them.

        With a chunk u (frames), a state s (2 * states: real parts, then imaginary parts):
        `y = direct @ u + s @ readout`, `s' = s * decay_real + rotated(s) * decay_imag + u @ write`, where
        `rotated(s)` swaps the halves of s.

        Returns:
            direct (heads, length, length), readout (heads, 2 states, length), write (heads, length, 2 states),
            decay_real and decay_imag (heads, 2 states).
        """
        _, _, c_real, c_imag = self._used(None)
        b_real, b_imag = (part[..., None] for part in self.input_gain())
        steps = torch.arange(1, length + 1, dtype=self.D.dtype, device=self.D.device)
        read_real, read_imag = self.powers(steps)
        write_real, write_imag = self.powers(length - steps)
        gain = torch.cat([b_real * write_real - b_imag * write_imag, b_real * write_imag + b_imag * write_real], 1)
        c_real, c_imag = c_real[..., None], c_imag[..., None]
        readout = 2 * torch.cat(
            [c_real * read_real - c_imag * read_imag, -c_real * read_imag - c_imag * read_real], dim=1
        )
        last_real, last_imag = read_real[..., -1], read_imag[..., -1]
        return {
            "direct": self.toeplitz(length),
            "readout": readout,
            "write": gain.transpose(1, 2),
            "decay_real": torch.cat([last_real, last_real], 1),
            "decay_imag": torch.cat([-last_imag, last_imag], 1),
        }

    def plain(self) -> "DiagonalSSM":
        """The active heads and states alone."""
        h, n = active(self.heads), active(self.states)
        ssm = DiagonalSSM(h, n)
        ssm.log_dt, ssm.D = copied(self.log_dt[:h]), copied(self.D[:h])
        ssm.log_A_real, ssm.A_imag = copied(self.log_A_real[:h, :n]), copied(self.A_imag[:h, :n])
        ssm.C = copied(self.C[:h, :n])
        return ssm


class MultiHeadSSM(nn.Module):
    """Project into heads, filter each with its own state-space kernel, gate one half by the other, project back.

    Heads stand in pairs: the first of a pair is multiplied by the sigmoid of the second (inter-head gating).
    (batch, time, width) -> (batch, time, width), causal.

    Args:
        width: Of input and output.
        heads: Even number of heads.
        head_size: Channels per head.
        states: Complex modes per head.
    """

    def __init__(self, width: Width, heads: Width, head_size: int, states: Width) -> None:
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.ssm = DiagonalSSM(heads, states)
        # They depend on no batch: the nets of an update share those of all heads.
        self.convolutions = Once(self._convolutions)
        inner = heads * head_size
        # Half of the heads' channels leave the gate; head sizes are even, so the product is exact.
        self.into = ElasticLinear(width, inner)
        self.out = ElasticLinear(heads * (head_size // 2), width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        heads = active(self.heads)
        u = self.into(x).view(batch, time, heads, self.head_size)
        u = u.permute(2, 1, 0, 3).reshape(heads, time, batch * self.head_size)
        computed = full(self.heads) if self.convolutions.keeps else heads
        matrices = self.convolutions(time, computed, active(self.ssm.states))[:heads]
        y = torch.bmm(matrices.to(u.dtype), u)
        return self.out(gate(y.view(heads, time, batch, self.head_size).permute(2, 1, 0, 3)))

    def _convolutions(self, time: int, heads: int, states: int) -> Tensor:
        return self.ssm.toeplitz(time, (heads, states))


def gate(y: Tensor) -> Tensor:
    """Inter-head gating: (batch, time, heads, head size) -> (batch, time, heads / 2 * head size)."""
    return (y[:, :, 0::2] * y[:, :, 1::2].sigmoid()).flatten(2)
