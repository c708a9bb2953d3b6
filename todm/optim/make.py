"""The optimiser and learning-rate schedule that a recipe names, behind one way to take a step."""

import math
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from todm.optim.eden import Eden
from todm.optim.scaled_adam import ScaledAdam
from todm.recipe import Training

RATES = {"scaled_adam": 0.03, "adamw": 0.001, "sgd": 0.1}
"""Learning rates where a recipe gives none."""


class Schedule(Protocol):
    """Sets the learning rate for an update."""

    def step_batch(self, batch: float | None = None) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Annealed:
    """Linear warm-up from half the rate, then constant or a half cosine down to zero at the last update.

    Args:
        total: Updates of the whole training.
        warmup: Updates of warm-up.
        cosine: Whether the rate falls.
    """

    def __init__(self, optimizer: Optimizer, total: int, warmup: int, cosine: bool) -> None:
        self.optimizer, self.total, self.warmup, self.cosine = optimizer, total, warmup, cosine
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def factor(self, update: float) -> float:
        """What the base rate is multiplied by."""
        warmed = min(1.0, 0.5 + 0.5 * update / self.warmup) if self.warmup else 1.0
        return warmed * (0.5 + 0.5 * math.cos(math.pi * min(update / self.total, 1.0)) if self.cosine else 1.0)

    def step_batch(self, batch: float | None = None) -> None:
        """Set the rates for update number `batch`."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.factor(batch or 0)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the rate is a function of the update alone."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def make_optimizer(parameters: Iterable[Tensor], config: Training) -> Optimizer:
    """The optimiser of a recipe."""
    lr = config.lr or RATES[config.optimizer]
    if config.optimizer == "scaled_adam":
        return ScaledAdam(parameters, lr, config.clipping_scale)
    decay = config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=0.01 if decay is None else decay, fused=True)
    return torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=decay or 0.0, fused=True)


def make_schedule(optimizer: Optimizer, config: Training) -> Schedule:
    """The learning-rate schedule of a recipe."""
    if config.lr_schedule == "eden":
        return Eden(optimizer, config.lr_batches, 1e9, config.warmup)
    return Annealed(optimizer, config.updates, config.warmup, config.lr_schedule == "cosine")


def step(optimizer: Optimizer) -> bool:
    """Take a step unless the gradient is not finite; returns whether it was taken."""
    if isinstance(optimizer, ScaledAdam):
        before = optimizer.skipped
        optimizer.step()
        return optimizer.skipped == before
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not torch.nn.utils.get_total_norm(grads).isfinite():
        return False
    optimizer.step()
    return True
