"""The exact transducer loss fused with the joiner: logits (batch, time, labels + 1, vocabulary) never exist at once.

Forward, the joiner runs on some cells of the lattice at a time, and each leaves four numbers. Backward, it runs again,
and only on cells that the gradient reaches: those far off every likely alignment are left out as long as all of
them together stay below the rounding of the sums they would enter. A trained model's lattice is nearly all such cells.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from todm.speech.collapse import check_lengths, gradient_of_classes, labels_of_rows, normalised, reduced, spread
from todm.speech.lattice import lattice_loss

# Numbers of the widest tensor that the joiner computes at a time: few enough for what it computes on the way to stay
# in a core's caches, and on a GPU enough to keep it busy.
_BLOCK_NUMBERS = {"cpu": 2**19, "cuda": 2**26}


def joint_rnnt_loss(
    encoded: Tensor,
    predicted: Tensor,
    joiner: nn.Module,
    targets: Tensor,
    encoder_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
) -> Tensor:
    """-ln P(targets), (batch,): `rnnt_loss` of `joiner(encoded[:, :, None] + predicted[:, None])` without its memory.

    Arguments and ValueError as in `joint_collapse`.
    """
    collapsed = joint_collapse(encoded, predicted, joiner, targets, encoder_lengths, target_lengths, blank)
    loss, _ = lattice_loss(collapsed, encoder_lengths, target_lengths)
    return loss.to(torch.promote_types(encoded.dtype, torch.float32))


def joint_collapse(
    encoded: Tensor,
    predicted: Tensor,
    joiner: nn.Module,
    targets: Tensor,
    encoder_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
) -> Tensor:
    """Log-probabilities of {next label, blank, all the rest}, (batch, time, labels + 1, 3), float64.

    As `collapse` of the joiner's logits within the lengths, zero beyond them. Under autocast the joiner runs in its
    precision, what follows in float32.

    Args:
        encoded: (batch, time, size).
        predicted: (batch, labels + 1, size).
        joiner: Maps sums (..., size) to logits (..., vocabulary), cell by cell and without random numbers.
        targets: (batch, labels) integers, none of them `blank` within its length.
        encoder_lengths, target_lengths: (batch,) integers, frames (1 or more) and labels (0 or more).

    Raises:
        ValueError: a shape, length or label is wrong, or the joiner draws random numbers.
    """
    if encoded.dim() != 3 or predicted.dim() != 3 or encoded.shape[::2] != predicted.shape[::2]:
        shapes = f"{tuple(encoded.shape)} and {tuple(predicted.shape)}"
        raise ValueError(f"what is joined must be (batch, time, size) and (batch, labels + 1, size), not {shapes}")
    if not isinstance(joiner, nn.Module):
        raise ValueError(f"joiner must be an nn.Module, whose parameters can be found, not {type(joiner).__name__}")
    (batch, time, size), rows = encoded.shape, predicted.shape[1]
    with torch.no_grad():
        vocabulary = joiner(encoded.new_empty(0, size)).shape[-1]
    labels = labels_of_rows(targets, target_lengths, rows, vocabulary, blank).to(encoded.device)
    if len(labels) != batch:
        raise ValueError(f"targets must be of {batch} utterances, as what is encoded, not of {len(labels)}")
    check_lengths("encoder_lengths", encoder_lengths, batch, 1, time)
    frames, last = (x.to(encoded.device)[:, None, None] for x in (encoder_lengths, target_lengths))
    frame, row = (torch.arange(x, device=encoded.device) for x in (time, rows))
    within = (frame[:, None] < frames) & (row <= last)
    joint = _Joint(joiner, max(1, _BLOCK_NUMBERS[encoded.device.type] // max(size, vocabulary)), encoded.device.type)
    parameters = [p for p in joiner.parameters() if p.requires_grad]
    return _JointCollapse.apply(joint, within, labels, blank, encoded, predicted, *parameters)


class _Joint:
    """The joiner, run on a block of cells at a time, forward and again backward."""

    def __init__(self, joiner: nn.Module, cells: int, device: str) -> None:
        self.joiner, self.cells, self.device = joiner, cells, device
        self.autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def logits(self, joined: Tensor) -> Tensor:
        """(cells, size) to (cells, vocabulary)."""
        enabled, dtype = self.autocast
        # Without the cache, in which weights cast without gradient would meet the backward pass.
        with torch.autocast(self.device, dtype, enabled, cache_enabled=False):
            return self.joiner(joined)

    def blocks(self, chosen: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of the chosen cells, (batch, time, rows), some at a time: which they are of all cells, frames and rows.

        All cells means batch * time * rows, all frames batch * time, all rows batch * rows.
        """
        _, time, rows = chosen.shape
        for cell in chosen.flatten().nonzero()[:, 0].split(self.cells):
            frame = cell // rows
            yield cell, frame, frame // time * rows + cell % rows


class _JointCollapse(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, joint: _Joint, within: Tensor, labels: Tensor, blank: int, encoded: Tensor, predicted: Tensor,
        *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        dtype = torch.promote_types(encoded.dtype, torch.float32)
        three = encoded.new_zeros((*within.shape, 3), dtype=torch.float64)
        before = _random_state(encoded.device)
        cells, next_label = three.flatten(0, 2), labels.flatten()[:, None]
        frames, rows = encoded.flatten(0, 1), predicted.flatten(0, 1)
        for cell, frame, row in joint.blocks(within):
            logits = joint.logits(frames.index_select(0, frame) + rows.index_select(0, row)).to(dtype)
            cells[cell] = reduced(logits, next_label[row], blank)
        if not torch.equal(before, _random_state(encoded.device)):
            raise ValueError("the joiner draws random numbers, which its second run cannot repeat; use rnnt_loss")
        collapsed, rest = normalised(three, labels, blank)
        collapsed.masked_fill_(~within[..., None], 0.0)
        ctx.joint, ctx.blank = joint, blank
        ctx.save_for_backward(labels, encoded, predicted, rest, collapsed, *parameters)
        return collapsed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_collapsed: Tensor) -> tuple[Tensor | None, ...]:
        labels, encoded, predicted, rest, collapsed, *parameters = ctx.saved_tensors
        of_class = gradient_of_classes(collapsed, grad_collapsed)
        dtype = torch.promote_types(encoded.dtype, torch.float32)
        frames, rows = encoded.flatten(0, 1), predicted.flatten(0, 1)
        of_frames, of_rows, *of_parameters = (x.new_zeros(x.shape, dtype=dtype) for x in (frames, rows, *parameters))
        reached = _reached(of_class.to(dtype))
        rest, of_class, next_label = rest.flatten(0, 2), of_class.flatten(0, 2), labels.flatten()[:, None]
        for cell, frame, row in ctx.joint.blocks(reached):
            joined = (frames.index_select(0, frame) + rows.index_select(0, row)).requires_grad_()
            with torch.enable_grad():
                logits = ctx.joint.logits(joined)
            grad = spread(logits.detach(), rest[cell], of_class[cell], next_label[row], ctx.blank).to(logits.dtype)
            found, *others = torch.autograd.grad(logits, [joined, *parameters], grad, allow_unused=True)
            if found is not None:
                of_frames.index_add_(0, frame, found.to(dtype))
                of_rows.index_add_(0, row, found.to(dtype))
            for total, part in zip(of_parameters, others, strict=True):
                if part is not None:
                    total += part
        sums = zip((of_frames, of_rows, *of_parameters), (encoded, predicted, *parameters), strict=True)
        return None, None, None, None, *(x.view(of.shape).to(of.dtype) for x, of in sums)


def _reached(of_class: Tensor) -> Tensor:
    """The cells that the gradient (batch, time, rows, 3) reaches, (batch, time, rows)."""
    size = of_class.abs().sum(-1)
    return ~(_negligible(size, 1) & _negligible(size, 2)) | ~size.isfinite()


def _negligible(size: Tensor, dim: int) -> Tensor:
    """The smallest values along `dim`, as many as together stay below half a unit in the last place of the sum."""
    ordered, places = size.sort(dim)
    sums = ordered.double().cumsum(dim)
    within = sums <= sums.narrow(dim, -1, 1) * torch.finfo(size.dtype).eps / 2
    return torch.zeros_like(within).scatter_(dim, places, within)


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
