"""The encoder on whole utterances of any length, with the silence it needs at the end."""

import torch
from torch import Tensor, nn

from todm.space import active
from todm.speech.encoder import SUBSAMPLING, Block, Encoder
from todm.speech.features import LOG_EPSILON
from todm.speech.ssm import MultiHeadSSM, first_row, shifted

SILENCE = 52
"""Frames of silence put after an utterance, a multiple of 4: a causal model finishes the last word in them."""
LONGEST = 3000
"""Feature frames, 30 s: the longest utterance where memory is planned ahead. Memory grows with its square."""


class WholeEncoder(nn.Module):
    """An encoder over padded utterances; what lies beyond an utterance's end is heard as silence.

    It computes what the encoder itself does in fewer steps: once and for all what does not depend on the length of an
    utterance, and the impulse responses of all layers together.

    Args:
        encoder: An extracted encoder, in eval mode, or a supernet's with a subnet active.
    """

    silence: Tensor
    decay: Tensor
    pitch: Tensor
    loudness: Tensor
    phase: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.blocks = nn.ModuleList(block for block in encoder.blocks if isinstance(block, Block))
        self.register_buffer("silence", torch.full((1, SILENCE, len(encoder.feature_mean)), LOG_EPSILON))
        layers = [block.mixer.ssm.modes() for block in self.blocks if isinstance(block.mixer, MultiHeadSSM)]
        for name in ("decay", "pitch", "loudness", "phase"):
            found = [modes[name].detach() for modes in layers]
            self.register_buffer(name, torch.cat(found) if found else torch.zeros(0, 1, 1))

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, 80) and the lengths (batch,) int64 -> vectors and their number, the silence included.

        Returns:
            (batch, ceil((frames + 52) / 4), size out) and (batch,) int64.
        """
        x = torch.cat([x, self.silence.expand(x.shape[0], -1, -1)], dim=1)
        heard = (torch.arange(x.shape[1], device=x.device)[None] < x_lens[:, None]).to(x.dtype).unsqueeze(-1)
        x = self.encoder.subsample(x * heard + (1 - heard) * LOG_EPSILON)
        t = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        responses = (torch.exp(self.decay * t + self.loudness) * torch.cos(self.pitch * t + self.phase)).sum(1)
        rows = first_row(responses)
        for block in self.blocks:
            assert isinstance(block, Block)
            mixer, heard = block.mixer, block.norm_mixer(x)
            if isinstance(mixer, MultiHeadSSM):
                heads = active(mixer.heads)
                x, rows = x + filtered(mixer, heard, rows[:heads]), rows[heads:]
            else:
                x = x + mixer(heard)
            x = x + block.feed_forward(x)
        return self.encoder.project(self.encoder.norm(x)), (x_lens + (SILENCE + SUBSAMPLING - 1)) // SUBSAMPLING


def filtered(mixer: MultiHeadSSM, x: Tensor, row: Tensor) -> Tensor:
    """A state-space layer, given the `first_row` of its impulse responses: (batch, time, width) -> the same."""
    (batch, time, _), heads, size = x.shape, active(mixer.heads), mixer.head_size
    u = mixer.into(x).reshape(batch, time, heads, size).permute(2, 1, 0, 3).reshape(heads, time, batch * size)
    # The matrix is made of `x` too: a runtime that may make it at any time would hold those of all layers at once.
    row = row + 0.0 * x[:1, :1, :1].reshape(1, 1)
    # Pairs of heads gate each other; slices of step 1, because others do not lower to every runtime.
    pairs = torch.bmm(shifted(row), u).reshape(heads // 2, 2, time, batch * size)
    gated = (pairs[:, 0] * torch.sigmoid(pairs[:, 1])).reshape(heads // 2, time, batch, size)
    return mixer.out(gated.permute(2, 1, 0, 3).reshape(batch, time, heads // 2 * size))
