"""What the losses over a lattice are tested against: every alignment of an utterance, counted one by one."""

from collections.abc import Callable

import torch
from torch import Tensor

Enumeration = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(logits (frames, labels + 1, vocabulary), targets (labels,)) -> loss, occupancy (frames, labels + 1, ...)."""


def total_and_occupancy(scores: list[Tensor], passes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Loss and occupancy from the log-probability of each alignment and the places it passes through."""
    total = torch.stack(scores).logsumexp(0)
    weights = (torch.stack(scores) - total).exp()
    return -total, torch.tensordot(weights, torch.stack(passes).to(weights), 1)


def check_as_enumerated(
    loss_of: Callable[[Tensor], tuple[Tensor, Tensor]], one: Enumeration, logits: Tensor, targets: Tensor,
    frames: Tensor, lengths: Tensor,
) -> None:  # fmt: skip
    """Losses, occupancies and gradients of a batch are those of its utterances one by one.

    Args:
        loss_of: logits -> loss (batch,), occupancy (batch, time, labels + 1, ...).
    """
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, occupancy = loss_of(ours)
    losses = []
    for n, (t, u) in enumerate(zip(frames.tolist(), lengths.tolist(), strict=True)):
        expected, passing = one(theirs[n, :t, : u + 1], targets[n, :u])
        losses.append(expected)
        padded = torch.zeros_like(occupancy[n])
        padded[:t, : u + 1] = passing
        torch.testing.assert_close(occupancy[n], padded.detach(), rtol=0, atol=1e-9)
    weights = torch.rand(len(losses), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss, torch.stack(losses))
    (weights * loss).sum().backward()
    (weights * torch.stack(losses)).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-9)
