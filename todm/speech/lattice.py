"""Transducer loss (Graves, "Sequence transduction with recurrent neural networks", 2012), exact.

In two steps, as only three of a cell's probabilities matter to the lattice: `collapse` reduces logits over
the vocabulary to log-probabilities of {next label, blank, all the rest}, `lattice_loss` sums over alignments.
From cell (t, u), u labels said by frame t, a label leads to (t, u + 1) and a blank to (t + 1, u).
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from todm.speech.collapse import check_lengths, collapse
from todm.speech.compiled_loss import compiled_rnnt_loss, torchaudio_loss


def rnnt_loss(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    reduction: str = "none",
    backend: Literal["auto", "todm", "torchaudio"] = "auto",
) -> Tensor:
    """-ln P(targets | logits), log-softmax included; what lies beyond an utterance's lengths does not count.

    Args:
        logits: (batch, time, labels + 1, vocabulary).
        targets: (batch, labels) integers, none of them `blank` within its length.
        logit_lengths, target_lengths: (batch,) integers, frames (1 or more) and labels (0 or more).
        reduction: "none" for (batch,), "sum" or "mean"; float32 at least.
        backend: "torchaudio" for its compiled loss, which "auto" takes on CUDA if it can be imported, up to float32;
            the other, everywhere else, is this package's.

    Raises:
        ValueError: a shape, length, label, the reduction or the backend is wrong.
        TodmError: torchaudio is asked for and cannot be used here.
    """
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be 'none', 'sum' or 'mean', not {reduction!r}")
    if backend not in ("auto", "todm", "torchaudio"):
        raise ValueError(f"backend must be 'auto', 'todm' or 'torchaudio', not {backend!r}")
    if backend == "auto":
        fits = logits.is_cuda and len(logits) > 0 and logits.dtype != torch.float64 and torchaudio_loss() is not None
        backend = "torchaudio" if fits else "todm"
    if backend == "torchaudio":
        loss = compiled_rnnt_loss(logits, targets, logit_lengths, target_lengths, blank)
    else:
        loss, _ = lattice_loss(collapse(logits, targets, target_lengths, blank), logit_lengths, target_lengths)
        loss = loss.to(torch.promote_types(logits.dtype, torch.float32))
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()


def lattice_loss(collapsed: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """-ln of the summed probability of all alignments, (batch,), and where they pass.

    The second is the occupancy (batch, time, labels + 1): posterior probability of passing through each cell,
    zero beyond the lengths, without gradient. Of the last axis of `collapsed`, {next label, blank, ...}, only
    the first two are used. Raises ValueError if a shape or length is wrong.
    """
    loss, arcs = lattice_arcs(collapsed, logit_lengths, target_lengths)
    return loss, arcs.sum(-1)


def lattice_arcs(collapsed: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """As `lattice_loss`, the occupancy by the arc taken: {next label, blank} (batch, time, labels + 1, 2)."""
    if collapsed.dim() != 4 or collapsed.shape[3] < 2:
        raise ValueError(f"collapsed must be (batch, time, labels + 1, 2 or more), not {tuple(collapsed.shape)}")
    batch, time, rows, _ = collapsed.shape
    check_lengths("logit_lengths", logit_lengths, batch, 1, time)
    check_lengths("target_lengths", target_lengths, batch, 0, rows - 1)
    return _Lattice.apply(collapsed, *(x.to(collapsed.device)[:, None, None] for x in (logit_lengths, target_lengths)))


class _Lattice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, collapsed: Tensor, frames: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        label, blank = _closed(collapsed, frames, labels)
        before, after = _path_sums(label, blank)
        total = before[:, -1:, -1:]
        # An impossible target has an infinite loss and no gradient.
        before = before[:, :-1] - total.clamp(min=torch.finfo(total.dtype).min)
        arcs = collapsed.new_zeros((*collapsed.shape[:3], 2))
        arcs[:, :, :-1, 0] = (before + label[:, :-1])[:, :, :-1].add_(after[:, :-1, 1:]).exp_()
        arcs[..., 1] = (before + blank[:, :-1]).add_(after[:, 1:]).exp_()
        beyond = torch.arange(arcs.shape[1], device=arcs.device)[:, None] >= frames
        arcs.masked_fill_(beyond[..., None], 0.0)
        ctx.unused = collapsed.shape[3] - 2
        ctx.save_for_backward(arcs)
        ctx.mark_non_differentiable(arcs)
        return -total[:, 0, 0].to(collapsed.dtype), arcs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        return pad(ctx.saved_tensors[0] * -grad_loss[:, None, None, None], (0, ctx.unused)), None, None


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
