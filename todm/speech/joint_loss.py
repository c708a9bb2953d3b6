"""The exact transducer loss fused with the joiner: logits (batch, time, labels + 1, vocabulary) never exist at once.

Forward, the joiner runs on one block of cells at a time, and each cell leaves four numbers. Backward, it runs again,
and only on cells that the gradient reaches: those far off every likely alignment are left out as long as all of
them together stay below the rounding of the sums they would enter. A trained model's lattice is nearly all such cells.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from todm.speech.collapse import check_lengths, gradient_of_classes, labels_of_rows, normalised, reduced, spread
from todm.speech.lattice import lattice_loss

# Numbers of a block's widest tensor: few enough for what the joiner computes on the way to stay in a core's caches,
# and on a GPU enough to keep it busy.
_BLOCK_NUMBERS = {"cpu": 3 * 2**17, "cuda": 2**26}

Block = tuple[slice, slice, slice]
"""Utterances, frames and rows of a part of the lattice."""


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
    return lattice_loss(collapsed, encoder_lengths, target_lengths)[0]


def joint_collapse(
    encoded: Tensor,
    predicted: Tensor,
    joiner: nn.Module,
    targets: Tensor,
    encoder_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
) -> Tensor:
    """Log-probabilities of {next label, blank, all the rest}, (batch, time, labels + 1, 3), float32 at least.

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
    lengths = encoder_lengths.cpu().numpy(), target_lengths.cpu().numpy()
    high = np.where(np.arange(time) < lengths[0][:, None], 1 + lengths[1][:, None], 0)
    cells = max(1, _BLOCK_NUMBERS[encoded.device.type] // max(size, vocabulary))
    state = _State(joiner, labels, blank, cells)
    parameters = [p for p in joiner.parameters() if p.requires_grad]
    return _JointCollapse.apply(state, high, encoded, predicted, *parameters)


class _State:
    """What a block is computed with, forward and again backward."""

    def __init__(self, joiner: nn.Module, labels: Tensor, blank: int, cells: int) -> None:
        self.joiner, self.labels, self.blank, self.cells = joiner, labels, blank, cells
        self.device = labels.device.type
        self.autocast = torch.is_autocast_enabled(self.device), torch.get_autocast_dtype(self.device)

    def logits(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Of a block: (utterances, frames, size) and (utterances, rows, size) to (..., vocabulary)."""
        enabled, dtype = self.autocast
        # Without the cache, in which weights cast without gradient would meet the backward pass.
        with torch.autocast(self.device, dtype, enabled, cache_enabled=False):
            return self.joiner(encoded[:, :, None] + predicted[:, None])

    def slots(self, block: Block) -> Tensor:
        """The next label of a block's cells, (utterances, frames, rows, 1)."""
        utterances, frames, rows = block
        labels = self.labels[utterances, None, rows, None]
        return labels.expand(-1, frames.stop - frames.start, -1, -1)


class _JointCollapse(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, state: _State, high: np.ndarray, encoded: Tensor, predicted: Tensor, *parameters: Tensor
    ) -> Tensor:
        dtype = torch.promote_types(encoded.dtype, torch.float32)
        (batch, time, _), rows = encoded.shape, predicted.shape[1]
        three = encoded.new_zeros((batch, time, rows, 3), dtype=dtype)
        before = _random_state(encoded.device)
        for block in _blocks(np.zeros_like(high), high, state.cells):
            utterances, frames, row = block
            logits = state.logits(encoded[utterances, frames], predicted[utterances, row]).to(dtype)
            three[block] = reduced(logits, state.slots(block), state.blank)
        if not torch.equal(before, _random_state(encoded.device)):
            raise ValueError("the joiner draws random numbers, which its second run cannot repeat; use rnnt_loss")
        collapsed, rest = normalised(three, state.labels, state.blank)
        beyond = torch.arange(rows) >= torch.from_numpy(high)[..., None]
        collapsed.masked_fill_(beyond.to(encoded.device)[..., None], 0.0)
        ctx.state = state
        ctx.save_for_backward(encoded, predicted, rest, collapsed, *parameters)
        return collapsed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_collapsed: Tensor) -> tuple[Tensor | None, ...]:
        encoded, predicted, rest, collapsed, *parameters = ctx.saved_tensors
        state: _State = ctx.state
        of_class = gradient_of_classes(collapsed, grad_collapsed)
        sums = [torch.zeros_like(x, dtype=rest.dtype) for x in (encoded, predicted, *parameters)]
        for block in _blocks(*_reached(of_class), state.cells):
            utterances, frames, row = block
            with torch.enable_grad():
                inputs = [encoded[utterances, frames].detach(), predicted[utterances, row].detach()]
                logits = state.logits(*(x.requires_grad_() for x in inputs))
            grad = spread(logits.detach(), rest[block], of_class[block], state.slots(block), state.blank)
            found = torch.autograd.grad(logits, [*inputs, *parameters], grad.to(logits.dtype), allow_unused=True)
            places = [sums[0][utterances, frames], sums[1][utterances, row], *sums[2:]]
            for place, part in zip(places, found, strict=True):
                if part is not None:
                    place += part
        return None, None, *(x.to(of.dtype) for x, of in zip(sums, (encoded, predicted, *parameters), strict=True))


def _reached(of_class: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """First row of each frame that the gradient (batch, time, rows, 3) reaches, and the one past the last."""
    size = of_class.abs().sum(-1)
    rows = size.shape[2]
    reached = ~(_negligible(size, 1) & _negligible(size, 2)) | ~size.isfinite()
    row = torch.arange(rows, device=size.device)
    low = torch.where(reached, row, rows).amin(2)
    high = torch.where(reached, row + 1, 0).amax(2)
    return low.cpu().numpy(), high.cpu().numpy()


def _negligible(size: Tensor, dim: int) -> Tensor:
    """The smallest values along `dim`, as many as together stay below half a unit in the last place of the sum."""
    ordered, places = size.sort(dim)
    sums = ordered.double().cumsum(dim)
    within = sums <= sums.narrow(dim, -1, 1) * torch.finfo(size.dtype).eps / 2
    return torch.zeros_like(within).scatter_(dim, places, within)


def _blocks(low: np.ndarray, high: np.ndarray, cells: int) -> Iterator[Block]:
    """Blocks of at most about `cells` cells that cover rows `low` to `high` of every frame, (batch, time) each.

    Whole utterances if several fit, else frames of one, cropped to what they need.
    """
    batch, time = low.shape
    rows = max(1, int(high.max(initial=0)))
    utterances = max(1, cells // max(1, time * rows))
    frames = max(1, min(time, cells // rows))
    for b in range(0, batch, utterances):
        for t in range(0, time, frames):
            part = slice(b, min(b + utterances, batch)), slice(t, t + frames)
            first, last = low[part], high[part]
            (used,) = np.nonzero((last > first).any(0))
            if len(used):
                span = slice(t + int(used[0]), t + int(used[-1]) + 1)
                yield part[0], span, slice(int(first.min()), int(last.max()))


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
