"""Transducer loss (Graves, "Sequence transduction with recurrent neural networks", 2012), exact.

In two steps, as only three of a cell's probabilities matter to the lattice: `collapse` reduces logits over
the vocabulary to log-probabilities of {next label, blank, all the rest}, `lattice_loss` sums over alignments.
From cell (t, u), u labels said by frame t, a label leads to (t, u + 1) and a blank to (t + 1, u).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

# Logits collapsed at a time, in whole utterances: few enough for the working copy to stay in a core's cache.
_CHUNK_LOGITS = 2**18


def rnnt_loss(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    reduction: str = "none",
) -> Tensor:
    """-ln P(targets | logits), log-softmax included; what lies beyond an utterance's lengths does not count.

    Args:
        logits: (batch, time, labels + 1, vocabulary).
        targets: (batch, labels) integers, none of them `blank` within its length.
        logit_lengths, target_lengths: (batch,) integers, frames (1 or more) and labels (0 or more).
        reduction: "none" for (batch,), "sum" or "mean"; float32 at least.

    Raises:
        ValueError: a shape, length, label or the reduction is wrong.
    """
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be 'none', 'sum' or 'mean', not {reduction!r}")
    loss, _ = lattice_loss(collapse(logits, targets, target_lengths, blank), logit_lengths, target_lengths)
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()


def collapse(logits: Tensor, targets: Tensor, target_lengths: Tensor, blank: int = 0) -> Tensor:
    """Log-probabilities of {next label, blank, all the rest}, (batch, time, labels + 1, 3), float32 at least.

    Where no label is left, its log-probability is -inf, the rest all but blank. Memory in training: logits, a
    gradient of their size, four numbers a cell. Arguments and ValueError as in `rnnt_loss`.
    """
    if logits.dim() != 4 or not logits.is_floating_point() or logits.shape[3] < 2:
        raise ValueError(f"logits must be floats (batch, time, labels + 1, vocabulary), not {tuple(logits.shape)}")
    batch, _, rows, vocabulary = logits.shape
    if targets.shape != (batch, rows - 1):
        raise ValueError(f"targets must be {(batch, rows - 1)} for these logits, not {tuple(targets.shape)}")
    if not 0 <= blank < vocabulary:
        raise ValueError(f"blank must be one of the {vocabulary} classes, not {blank}")
    _check_lengths("target_lengths", target_lengths, batch, 0, rows - 1)
    ended = torch.arange(rows, device=logits.device) >= target_lengths.to(logits.device)[:, None]
    labels = pad(targets.to(logits.device, torch.long), (0, 1)).masked_fill_(ended, blank)
    if bool(((labels < 0) | (labels >= vocabulary) | ((labels == blank) != ended)).any()):
        raise ValueError(f"targets must be classes 0 to {vocabulary - 1} other than blank, which is {blank}")
    return _Collapse.apply(logits, labels, blank)


def lattice_loss(collapsed: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """-ln of the summed probability of all alignments, (batch,), and where they pass.

    The second is the occupancy (batch, time, labels + 1): posterior probability of passing through each cell,
    zero beyond the lengths, without gradient. The third number of `collapsed`, the rest, is not used.
    Raises ValueError if a shape or length is wrong.
    """
    if collapsed.dim() != 4 or collapsed.shape[3] != 3:
        raise ValueError(f"collapsed must be (batch, time, labels + 1, 3), not {tuple(collapsed.shape)}")
    batch, time, rows, _ = collapsed.shape
    _check_lengths("logit_lengths", logit_lengths, batch, 1, time)
    _check_lengths("target_lengths", target_lengths, batch, 0, rows - 1)
    return _Lattice.apply(collapsed, *(x.to(collapsed.device)[:, None, None] for x in (logit_lengths, target_lengths)))


def _check_lengths(name: str, lengths: Tensor, batch: int, least: int, most: int) -> None:
    if lengths.shape != (batch,) or lengths.is_floating_point():
        raise ValueError(f"{name} must be {batch} integers, not {tuple(lengths.shape)} of {lengths.dtype}")
    if bool(((lengths < least) | (lengths > most)).any()):
        raise ValueError(f"{name} must lie between {least} and {most}, not {lengths.tolist()}")


class _Collapse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, blank: int) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        collapsed = logits.new_empty((*logits.shape[:3], 3), dtype=dtype)
        for part, slots in _chunks(logits, labels):
            work = logits[part].to(dtype, copy=True)
            collapsed[part][..., :1], collapsed[part][..., 1] = work.gather(-1, slots), work[..., blank]
            # Summed directly: one minus the other two would cancel where the model is sure of itself.
            work[..., blank] = -math.inf
            work.scatter_(-1, slots, -math.inf)
            top = work.amax(-1, keepdim=True).clamp_(min=torch.finfo(dtype).min)
            collapsed[part][..., 2] = work.sub_(top).exp_().sum(-1).log_().add_(top[..., 0])
        rest = collapsed[..., 2:].clamp(min=torch.finfo(dtype).min)
        collapsed[..., 0].masked_fill_((labels == blank)[:, None], -math.inf)
        collapsed -= collapsed.logsumexp(-1, keepdim=True)
        ctx.blank = blank
        ctx.save_for_backward(logits, labels, rest, collapsed)
        return collapsed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_collapsed: Tensor) -> tuple[Tensor, None, None]:
        logits, labels, rest, collapsed = ctx.saved_tensors
        # A log-probability of -inf depends on no logit.
        grad_collapsed = grad_collapsed.masked_fill(collapsed == -math.inf, 0.0)
        of_class = grad_collapsed - collapsed.exp() * grad_collapsed.sum(-1, keepdim=True)
        grad = torch.empty_like(logits)
        for part, slots in _chunks(logits, labels):
            work = (logits[part] - rest[part]).exp_().mul_(of_class[part][..., 2:])
            work.scatter_(-1, slots, of_class[part][..., :1])
            work[..., ctx.blank] = of_class[part][..., 1]
            grad[part] = work
        return grad, None, None


def _chunks(logits: Tensor, labels: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Parts of the batch, with each cell's next label as an index into the vocabulary."""
    slots = labels[:, None, :, None].expand(*logits.shape[:3], 1)
    size = max(1, _CHUNK_LOGITS // max(1, logits[:1].numel()))
    for start in range(0, len(logits), size):
        yield slice(start, start + size), slots[start : start + size]


class _Lattice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, collapsed: Tensor, frames: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        label, blank = _closed(collapsed, frames, labels)
        before, after = _path_sums(label, blank)
        total = before[:, -1:, -1:]
        # An impossible target has an infinite loss and no gradient.
        before = before[:, :-1] - total.clamp(min=torch.finfo(total.dtype).min)
        grad = torch.zeros_like(collapsed)
        grad[:, :, :-1, 0] = (before + label[:, :-1])[:, :, :-1].add_(after[:, :-1, 1:]).exp_().neg_()
        grad[..., 1] = (before + blank[:, :-1]).add_(after[:, 1:]).exp_().neg_()
        beyond = torch.arange(grad.shape[1], device=grad.device)[:, None] >= frames
        grad.masked_fill_(beyond[..., None], 0.0)
        occupancy = -grad.sum(-1)
        ctx.save_for_backward(grad)
        ctx.mark_non_differentiable(occupancy)
        return -total[:, 0, 0].to(collapsed.dtype), occupancy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * grad_loss[:, None, None, None], None, None


def _closed(collapsed: Tensor, frames: Tensor, labels: Tensor) -> Tensor:
    """Label and blank log-probabilities (2, batch, time + 1, labels + 1) of lattices ending in the last cell.

    From an utterance's end one way of probability 1 leads there: blanks up to an added frame, then labels.
    """
    batch, time, rows, _ = collapsed.shape
    both = collapsed.new_empty((2, batch, time + 1, rows), dtype=torch.float64)
    both[:, :, :time] = collapsed[..., :2].permute(3, 0, 1, 2)
    label, blank = both
    row = torch.arange(rows, device=collapsed.device)
    outside = (torch.arange(time + 1, device=collapsed.device)[:, None] >= frames) | (row > labels)
    label.masked_fill_(outside | (row == labels), -math.inf)
    blank.masked_fill_(outside, 0.0)
    label[:, time].masked_fill_(row >= labels[:, 0], 0.0)
    blank[:, time] = -math.inf
    return both


def _path_sums(label: Tensor, blank: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sums over the paths from the first cell to each and from each to the last, as `label` in shape.

    The second is the first on the lattice turned by half a circle: both run at once, diagonal by diagonal.
    """
    batch, time, rows = label.shape
    # Of the arcs that enter each cell, by diagonal: (t + u, lattice, u).
    by_label, by_blank = label.new_full((2, time + rows - 1, 2 * batch, rows), -math.inf)
    cells = _cells(by_label, time)[:, :, 1:], _cells(by_blank, time)[:, 1:]
    for into, arcs in zip(cells, (label[:, :, :-1], blank[:, :-1]), strict=True):
        into[:batch], into[batch:] = arcs, arcs.flip(1, 2)
    # One column more, of -inf: where row 0 would be entered from.
    sums = label.new_full((time + rows - 1, 2 * batch, rows + 1), -math.inf)
    sums[0, :, 1] = 0.0
    same, lower = sums[:, :, 1:], sums[:, :, :-1]
    for *last, of_label, of_blank, here in zip(lower, same, by_label[1:], by_blank[1:], same[1:], strict=False):
        torch.logaddexp(of_label.add_(last[0]), of_blank.add_(last[1]), out=here)
    return _cells(same, time)[:batch], _cells(same, time)[batch:].flip(1, 2)


def _cells(by_diagonal: Tensor, time: int) -> Tensor:
    """View of (diagonals, lattices, labels + 1) as (lattices, time, labels + 1)."""
    (_, lattices, rows), (diagonal, lattice, row) = by_diagonal.shape, by_diagonal.stride()
    strides = (lattice, diagonal, diagonal + row)
    return by_diagonal.as_strided((lattices, time, rows), strides, by_diagonal.storage_offset())
