"""Logits over the vocabulary reduced to the three numbers of a cell that a transducer's lattice needs.

They are the log-probabilities of {next label, blank, all the rest}: losses need the first two, distillation all
three. With S = sum of the three numbers' gradients and p the softmax, a logit's gradient is that of its class
minus p times S; classes of the rest share theirs by their probabilities.

The three are float64, whatever the logits: a path adds hundreds of them, and float32 would round each.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

# Logits collapsed at a time, in whole frames: few enough for the working copy to stay in a core's cache.
_CHUNK_LOGITS = 2**18


def collapse(logits: Tensor, targets: Tensor, target_lengths: Tensor, blank: int = 0) -> Tensor:
    """Log-probabilities of {next label, blank, all the rest}, (batch, time, labels + 1, 3), float64.

    Where no label is left, its log-probability is -inf, the rest all but blank. Memory in training: logits, a
    gradient of their size, four numbers a cell.

    Args:
        logits: (batch, time, labels + 1, vocabulary).
        targets: (batch, labels) integers, none of them `blank` within its length.
        target_lengths: (batch,) integers, labels (0 or more).

    Raises:
        ValueError: a shape, length or label is wrong.
    """
    return collapse_rows(logits, checked_labels(logits, targets, target_lengths, blank), blank)


def checked_labels(logits: Tensor, targets: Tensor, target_lengths: Tensor, blank: int) -> Tensor:
    """`labels_of_rows` for these logits, on their device; ValueError as in `collapse`."""
    if logits.dim() != 4 or not logits.is_floating_point() or logits.shape[3] < 2:
        raise ValueError(f"logits must be floats (batch, time, labels + 1, vocabulary), not {tuple(logits.shape)}")
    labels = labels_of_rows(targets, target_lengths, logits.shape[2], logits.shape[3], blank)
    if len(labels) != len(logits):
        raise ValueError(f"targets must be of {len(logits)} utterances, as the logits, not of {len(labels)}")
    return labels.to(logits.device)


def collapse_rows(logits: Tensor, labels: Tensor, blank: int) -> Tensor:
    """`collapse` with the next labels (batch, rows) given, `blank` where none is left."""
    return _Collapse.apply(logits, labels, blank)


def labels_of_rows(targets: Tensor, target_lengths: Tensor, rows: int, vocabulary: int, blank: int) -> Tensor:
    """The label that leads on from each row, (batch, rows); `blank` where none is left.

    Raises ValueError as `collapse`.
    """
    if targets.dim() != 2 or targets.shape[1] != rows - 1:
        raise ValueError(f"targets must be (batch, {rows - 1}) for these rows, not {tuple(targets.shape)}")
    if not 0 <= blank < vocabulary:
        raise ValueError(f"blank must be one of the {vocabulary} classes, not {blank}")
    check_lengths("target_lengths", target_lengths, len(targets), 0, rows - 1)
    ended = torch.arange(rows, device=targets.device) >= target_lengths.to(targets.device)[:, None]
    labels = pad(targets.long(), (0, 1)).masked_fill_(ended, blank)
    if bool(((labels < 0) | (labels >= vocabulary) | ((labels == blank) != ended)).any()):
        raise ValueError(f"targets must be classes 0 to {vocabulary - 1} other than blank, which is {blank}")
    return labels


def check_lengths(name: str, lengths: Tensor, batch: int, least: int, most: int) -> None:
    """ValueError unless `lengths` are `batch` integers from `least` to `most`."""
    if lengths.shape != (batch,) or lengths.is_floating_point():
        raise ValueError(f"{name} must be {batch} integers, not {tuple(lengths.shape)} of {lengths.dtype}")
    if bool(((lengths < least) | (lengths > most)).any()):
        raise ValueError(f"{name} must lie between {least} and {most}, not {lengths.tolist()}")


def reduced(logits: Tensor, slots: Tensor, blank: int) -> Tensor:
    """{label, blank, log-sum of the rest} of logits (..., vocabulary), which are overwritten; float64, not normalised.

    `slots` (..., 1) is each cell's next label, or the blank where there is none.
    """
    three = logits.new_empty((*logits.shape[:-1], 3), dtype=torch.float64)
    three[..., :1], three[..., 1] = logits.gather(-1, slots), logits[..., blank]
    # Summed directly: one minus the other two would cancel where the model is sure of itself.
    logits[..., blank] = -math.inf
    logits.scatter_(-1, slots, -math.inf)
    top = logits.amax(-1, keepdim=True).clamp_(min=torch.finfo(logits.dtype).min)
    three[..., 2] = logits.sub_(top).exp_().sum(-1).double().log_().add_(top[..., 0])
    return three


def normalised(three: Tensor, labels: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """What `reduced` gives, (batch, time, rows, 3), as log-probabilities in place; and its rest's log-sum."""
    rest = three[..., 2:].clamp(min=torch.finfo(torch.float32).min)
    three[..., 0].masked_fill_((labels == blank)[:, None], -math.inf)
    three -= three.logsumexp(-1, keepdim=True)
    return three, rest


def gradient_of_classes(collapsed: Tensor, grad: Tensor) -> Tensor:
    """The gradient in {label, blank, log-sum of the rest} before normalisation, from that after it; (..., 3)."""
    # A log-probability of -inf depends on no logit.
    grad = grad.masked_fill(collapsed == -math.inf, 0.0)
    return grad - collapsed.exp() * grad.sum(-1, keepdim=True)


def spread(
    logits: Tensor, rest: Tensor, of_class: Tensor, slots: Tensor, blank: int, out: Tensor | None = None
) -> Tensor:
    """The gradient in logits (..., vocabulary), from `gradient_of_classes` and `normalised`'s log-sum (..., 1).

    Float32 at least.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    near = rest.to(dtype)
    grad = torch.sub(logits, near, out=out).exp_().mul_((of_class[..., 2:] * (near - rest).exp()).to(dtype))
    grad.scatter_(-1, slots, of_class[..., :1].to(dtype))
    grad[..., blank] = of_class[..., 1]
    return grad


class _Collapse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, blank: int) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        three = logits.new_empty((*logits.shape[:3], 3), dtype=torch.float64)
        frames = three.flatten(0, 1)
        for part, of_part, slots in _chunks(logits, labels):
            frames[part] = reduced(of_part.to(dtype, copy=True), slots, blank)
        collapsed, rest = normalised(three, labels, blank)
        ctx.blank = blank
        ctx.save_for_backward(logits, labels, rest, collapsed)
        return collapsed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_collapsed: Tensor) -> tuple[Tensor, None, None]:
        logits, labels, rest, collapsed = ctx.saved_tensors
        of_class = gradient_of_classes(collapsed, grad_collapsed)
        grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
        exact = grad.dtype == torch.promote_types(grad.dtype, torch.float32)
        into, rest, of_class = (x.flatten(0, 1) for x in (grad, rest, of_class))
        for part, of_part, slots in _chunks(logits, labels):
            out = into[part] if exact else None
            found = spread(of_part, rest[part], of_class[part], slots, ctx.blank, out)
            if out is None:
                into[part] = found
        return grad, None, None


def _chunks(logits: Tensor, labels: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Parts of all frames (batch * time), their logits, and each cell's next label as an index into the vocabulary."""
    frames, slots = logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1], 0)[..., None]
    size = max(1, _CHUNK_LOGITS // max(1, frames[:1].numel()))
    for start in range(0, len(frames), size):
        part = slice(start, start + size)
        yield part, frames[part], slots[part]
