"""torchaudio's compiled transducer loss behind the interface of ours, where its wheel fits the installed torch."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from todm.errors import TodmError
from todm.speech.collapse import check_lengths, checked_labels


@cache
def torchaudio_loss() -> Any:
    """Its `rnnt_loss`, or None if torchaudio is missing or does not load beside this torch."""
    try:
        from torchaudio.functional import rnnt_loss
    except (ImportError, OSError):
        return None
    return rnnt_loss


def compiled_rnnt_loss(
    logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor, blank: int
) -> Tensor:
    """-ln P(targets | logits), (batch,) float32; arguments as in `rnnt_loss`, on the logits' device.

    It computes in float32, and wants the longest utterance to fill the tensors.

    Raises:
        TodmError: torchaudio cannot be used here.
        ValueError: as in `rnnt_loss`.
    """
    function = torchaudio_loss()
    if function is None:
        raise TodmError("torchaudio is missing or does not fit this torch: pip install torchaudio, or backend='todm'")
    checked_labels(logits, targets, target_lengths, blank)
    check_lengths("logit_lengths", logit_lengths, len(logits), 1, logits.shape[1])
    time, labels = int(logit_lengths.max()), int(target_lengths.max())
    logits = logits[:, :time, : labels + 1].to(torch.float32).contiguous()
    numbers = (targets[:, :labels], logit_lengths, target_lengths)
    integers = [x.to(logits.device, torch.int32).contiguous() for x in numbers]
    return function(logits, *integers, blank=blank, reduction="none")
