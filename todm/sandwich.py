"""The whole idea: each update trains the largest net, the smallest and some random ones, and the largest teaches.

Sandwich rule: Yu & Huang 2019 (arXiv 1903.05134). In-place distillation: Wang et al. 2021 (AlphaNet, arXiv 2102.07954).
Together, for transducers: TODM, arXiv 2309.01947.
"""

import random
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from todm.dropout import penalty
from todm.once import computed_once
from todm.space import Arch, SearchSpace, activate
from todm.task import LossOutput

Loss = Callable[[nn.Module, Any], LossOutput]
"""(model with a subnet active, batch) -> its loss, and what it can teach or be taught."""
Divergence = Callable[[Tensor, Tensor], Tensor]
"""(student logits, teacher logits), each (..., classes) -> (...)."""


def sandwich(space: SearchSpace, rng: random.Random, n_random: int) -> dict[str, Arch]:
    """The architectures of one update: the largest, the smallest, and `n_random` drawn uniformly."""
    drawn = {f"random_{index}": space.sample(rng) for index in range(n_random)}
    return {"largest": space.largest(), "smallest": space.smallest(), **drawn}


def in_turn(archs: dict[str, Arch], students: float, update: int) -> dict[str, Arch]:
    """Of the architectures of an update the first, and on average `students` of the others, which take turns."""
    (largest, first), *others = archs.items()
    turns = range(int(update * students), int((update + 1) * students))
    chosen = {turn % len(others) for turn in turns if others}
    return {largest: first, **{name: arch for place, (name, arch) in enumerate(others) if place in chosen}}


def accumulate_gradients(
    model: nn.Module, loss: Loss, batch: Any, archs: dict[str, Arch], divergence: Divergence, strength: float,
    teacher: LossOutput | None = None,
) -> dict[str, float]:  # fmt: skip
    """Average the gradients of all `archs` on one batch; the first is the teacher of the others.

    The mean, not the sum: an optimiser that divides by the gradient's running size would step too far where an update
    has more nets than the one before. Each net's graph is freed by its own backward pass before the next net runs, so
    memory is that of one net.

    Args:
        strength: Weight of the divergence from the teacher beside the loss on the labels.
        teacher: Imitated in place of the first net.

    Returns:
        The loss of each net and the mean divergence of the others from the teacher.
    """
    log: dict[str, float] = {}
    with computed_once(model):
        for index, (name, arch) in enumerate(archs.items()):
            activate(model, arch)
            output = loss(model, batch)
            total = output.loss
            if index == 0:
                teacher = teacher or output.detach()
            elif teacher is not None and strength > 0:
                distance = (teacher.weight * divergence(output.logits, teacher.logits)).sum()
                total = total + strength * distance
                log["divergence"] = log.get("divergence", 0.0) + float(distance.detach()) / (len(archs) - 1)
            if (extra := penalty(model)) is not None:
                total = total + extra
            (total / len(archs)).backward()  # type: ignore[no-untyped-call]
            log[f"loss_{name}"] = float(output.loss.detach())
    return log
