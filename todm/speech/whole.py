"""The encoder on whole utterances of any length: the form that was trained, with the silence it needs at the end."""

import torch
from torch import Tensor, nn

from todm.speech.encoder import SUBSAMPLING, Encoder
from todm.speech.features import LOG_EPSILON

SILENCE = 52
"""Frames of silence put after an utterance, a multiple of 4: a causal model finishes the last word in them."""
LONGEST = 3000
"""Feature frames, 30 s: the longest utterance where memory is planned ahead. Memory grows with its square."""


class WholeEncoder(nn.Module):
    """An encoder over padded utterances; what lies beyond an utterance's end is heard as silence.

    Args:
        encoder: An extracted encoder, in eval mode, or a supernet's.
    """

    silence: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("silence", torch.full((1, SILENCE, len(encoder.feature_mean)), LOG_EPSILON))

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, 80) and the lengths (batch,) int64 -> vectors and their number, the silence included.

        Returns:
            (batch, ceil((frames + 52) / 4), size out) and (batch,) int64.
        """
        x = torch.cat([x, self.silence.expand(x.shape[0], -1, -1)], dim=1)
        heard = (torch.arange(x.shape[1], device=x.device)[None] < x_lens[:, None]).to(x.dtype).unsqueeze(-1)
        x = x * heard + (1 - heard) * LOG_EPSILON
        return self.encoder(x), (x_lens + (SILENCE + SUBSAMPLING - 1)) // SUBSAMPLING
