"""LeNet-300-100 for MNIST with elastic widths, and the share of its weights that is not zero."""

from pathlib import Path

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from todm import Choice
from todm.elastic import ElasticLinear
from todm.program import Methods, Program
from todm.recipe import STRICT, Count
from todm.recipes.mnist import MnistData, MnistTask, load_mnist
from todm.task import Score


@dataclass(frozen=True, config=STRICT)
class LenetModel:
    """Sizes of the network."""

    first: list[Count] = Field(default_factory=lambda: [75, 150, 300])
    """Options for the width of the first hidden layer."""
    second: list[Count] = Field(default_factory=lambda: [25, 50, 100])
    """Options for the width of the second."""


class Lenet(nn.Module):
    """Pixels (batch, 784) in 0..1 -> logits (batch, 10)."""

    def __init__(self, pixels: int, classes: int, config: LenetModel) -> None:
        super().__init__()
        first, second = Choice("first", config.first), Choice("second", config.second)
        self.fc1 = ElasticLinear(pixels, first)
        self.fc2 = ElasticLinear(first, second)
        self.fc3 = ElasticLinear(second, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(pixels)))))


class LenetTask(MnistTask):
    """Digits by LeNet-300-100, most of whose weights training closes."""

    Data, Model = MnistData, LenetModel

    def __init__(self, data: MnistData, model: LenetModel, seed: int, cache: Path) -> None:
        super().__init__(data, load_mnist(data.folder, cache), seed)
        self.model = model

    def build(self) -> Lenet:
        """The supernet."""
        return Lenet(self.train.shape[1], self.images.classes, self.model)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Error and non-zero weights, both in percent."""
        return super().evaluate(model, split) | {"nonzero": nonzero(model)}

    def score(self, program: Program, methods: Methods, split: str) -> Score:
        """The same of an exported program; the weights are those it was made from."""
        score = super().score(program, methods, split)
        return Score(score.metrics | {"nonzero": nonzero(program.methods[0].module)}, score.outputs)


def nonzero(model: nn.Module) -> float:
    """Percent of the active weights of all linear layers, biases aside, that are not zero.

    Args:
        model: A supernet in eval mode, where what training has closed is zero, or an extracted subnet.
    """
    weights = [
        (module.plain() if isinstance(module, ElasticLinear) else module).weight.detach()
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    return 100 * sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)
