"""The protocol a task fulfils: what TODM needs to know of a model and its data. "Bring your own model" = write one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from todm.distributed import WHOLE, Shard
from todm.program import Methods, Program


@dataclass(frozen=True)
class LossOutput:
    """What one forward pass gives to training."""

    loss: Tensor
    """Scalar, to be minimised."""
    logits: Tensor
    """(..., classes): what a subnet is taught to imitate."""
    weight: Tensor
    """(...): how much each position counts in the distillation, zero for padding; no gradient."""
    count: float = 1.0
    """What `loss` and `weight` are means over, e.g. symbols: the share of one of several processes in a batch."""

    def detach(self) -> "LossOutput":
        """The same numbers without their graph."""
        return LossOutput(self.loss.detach(), self.logits.detach(), self.weight.detach(), self.count)


@dataclass(frozen=True)
class Score:
    """What an exported program does on a split."""

    metrics: dict[str, float]
    """The first one is what search minimises."""
    outputs: list[str]
    """The decision on each sample, for comparison between forms of one model."""


class Task(Protocol):
    """A model family and its data.

    A recipe's task is made as `Task(data, model, seed, cache)`: `Data` and `Model` are the dataclasses that declare the
    recipe's blocks of that name, `cache` is a folder for data that several runs share.
    """

    Data: type
    Model: type
    pipeline: str
    """Kind of task as Hugging Face names it, e.g. `image-classification`."""
    # `unit`, the unit of the first metric, may be given too; without it the metric is in percent.

    def provenance(self) -> dict[str, str]:
        """Where the data came from: `source` in a sentence, `licence`, and what else should be on record."""
        ...

    def build(self) -> nn.Module:
        """The supernet, freshly initialised."""
        ...

    def train_batches(self, start: int, shard: Shard = WHOLE) -> Iterator[Any]:
        """Batches of the updates `start`, `start + 1`, ..., each a function of seed and index alone.

        One of several processes takes its `shard` of each; a task that is trained by one need not declare it.
        Numbers in a batch's dictionary `log`, if it has one, go into the run's log.
        """
        ...

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        """The training loss of the active subnet on a batch."""
        ...

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Metrics of a model on `dev` or `test`, in percent or natural units; the first is minimised by search."""
        ...

    def program(self, subnet: nn.Module) -> Program:
        """What is exported of an extracted subnet."""
        ...

    # A task whose program has several variants also has
    # `agreement(program, methods, split) -> (largest difference, the same relative)` between their main outputs.

    def score(self, program: Program, methods: Methods, split: str) -> Score:
        """Run a program on `dev` or `test` as a device would; `methods` are its loaded form or `eager(program)`."""
        ...
