"""A task small enough to train in a second: points in four classes, an elastic MLP. Tests use it as a user would."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from todm import Choice
from todm.distributed import WHOLE, Shard
from todm.dropout.adaptive_width import AdaptiveDropout
from todm.elastic import ElasticLayerNorm, ElasticLinear, ElasticStack
from todm.program import Method, Methods, Program
from todm.task import LossOutput, Score

INPUTS, CLASSES, WIDTH = 8, 4, 16


@dataclass(frozen=True)
class ToyData:
    batch: int = 32
    nan: list[int] = field(default_factory=list)
    """Updates whose batch is not finite."""
    uneven: bool = False
    """Whether the batches differ in size."""
    interrupt: int = -1
    """Update before whose batch the process interrupts itself, as Ctrl-C would."""
    workers: int = 0
    """Processes that prepare batches ahead."""


@dataclass(frozen=True)
class ToyModel:
    depth: list[int] = field(default_factory=lambda: [1, 2, 3])
    hidden: list[int] = field(default_factory=lambda: [8, 16, 32])
    dropout: float = 0.1


class Block(nn.Module):
    def __init__(self, hidden: Choice, dropout: float):
        super().__init__()
        self.norm, self.drop = ElasticLayerNorm(WIDTH), AdaptiveDropout(dropout, hidden)
        self.up, self.down = ElasticLinear(WIDTH, hidden), ElasticLinear(hidden, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.drop(torch.relu(self.up(self.norm(x)))))


class Net(nn.Module):
    def __init__(self, config: ToyModel):
        super().__init__()
        blocks = [Block(Choice(f"hidden{i}", config.hidden), config.dropout) for i in range(max(config.depth))]
        self.into, self.out = nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.blocks = ElasticStack(blocks, Choice("depth", config.depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for block in self.blocks:
            x = block(x)
        return self.out(x)


def points(index: int, count: int) -> tuple[Tensor, Tensor]:
    """Points, and in which quadrant of their first two coordinates, bent a little, they lie."""
    x = torch.randn(count, INPUTS, generator=torch.Generator().manual_seed(index))
    return x, 2 * (x[:, 0] > 0.5 * x[:, 2]).long() + (x[:, 1] > 0.3 * x[:, 3] ** 2).long()


class ToyTask:
    Data, Model = ToyData, ToyModel
    pipeline = "tabular-classification"

    def __init__(self, data: ToyData, model: ToyModel, seed: int, cache: Path):
        self.data, self.model, self.seed = data, model, seed

    def provenance(self) -> dict[str, str]:
        return {"source": "random numbers", "licence": "cc0-1.0"}

    def build(self) -> Net:
        return Net(self.model)

    def train_batches(self, start: int, shard: Shard = WHOLE) -> Iterator[tuple[Tensor, Tensor]]:
        if self.data.workers:
            order, generator = count(start), torch.Generator()  # of its own: training's is left alone
            return iter(DataLoader(self, None, sampler=order, num_workers=self.data.workers, generator=generator))
        return self._batches(start, shard)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return points(1000 * self.seed + index, self.data.batch)

    def _batches(self, start: int, shard: Shard) -> Iterator[tuple[Tensor, Tensor]]:
        index = start
        while True:
            if index == self.data.interrupt:
                os.kill(os.getpid(), signal.SIGINT)
            x, y = points(1000 * self.seed + index, self.data.batch - (index % 5 if self.data.uneven else 0))
            x, y = shard.of(x), shard.of(y)
            yield (x * float("nan") if index in self.data.nan else x), y
            index += 1

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> LossOutput:
        x, y = batch
        logits = model(x).to(x.dtype)
        return LossOutput(cross_entropy(logits, y), logits, torch.full((len(y),), 1 / len(y)), len(y))

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        x, y = points(-1 if split == "dev" else -2, 500)
        return {"error": 100 * (model(x).argmax(-1) != y).float().mean().item()}

    def program(self, subnet: nn.Module) -> Program:
        return Program((Method("forward", "model", subnet.eval(), {"x": torch.zeros(1, INPUTS)}, ("logits",)),))

    def score(self, program: Program, methods: Methods, split: str) -> Score:
        x, y = points(-1 if split == "dev" else -2, 100)
        found = [int(methods["forward"](row[None].numpy())[0].argmax()) for row in x]
        wrong = sum(a != b for a, b in zip(found, y.tolist(), strict=True))
        return Score({"error": float(wrong)}, [str(label) for label in found])
