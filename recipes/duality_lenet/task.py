"""LeNet-300-100 for MNIST with elastic widths and depth, and the share of its weights that is not zero."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from todm import Choice, extract
from todm.elastic import ElasticLinear, ElasticStack
from todm.program import Methods, Program
from todm.recipe import STRICT, Count
from todm.recipes.mnist import MnistData, MnistTask, load_mnist
from todm.space import active_arch
from todm.task import Score


@dataclass(frozen=True, config=STRICT)
class LenetModel:
    """Sizes of the network."""

    first: list[Count] = Field(default_factory=lambda: [75, 150, 300])
    """Options for the width of the first hidden layer."""
    second: list[Count] = Field(default_factory=lambda: [25, 50, 100])
    """Options for the width of the second."""
    depth: list[Annotated[int, Field(ge=1, le=2)]] = Field(default_factory=lambda: [1, 2])
    """Options for the number of hidden layers."""


class Heads(ElasticStack):
    """One head for each depth, of which that of the active depth is used alone."""

    def kept(self, depth: int) -> tuple[int, ...]:
        return (depth - 1,)

    def __len__(self) -> int:
        return 1 if "depth" in self.__dict__ else super().__len__()


class Lenet(nn.Module):
    """Pixels (batch, 784) in 0..1 -> logits (batch, 10)."""

    def __init__(self, pixels: int, classes: int, config: LenetModel) -> None:
        super().__init__()
        first, second = Choice("first", config.first), Choice("second", config.second)
        depth = Choice("depth", config.depth)
        self.hidden = ElasticStack([ElasticLinear(pixels, first), ElasticLinear(first, second)], depth)
        head = ElasticLinear(second, classes)
        # Last, so that LeNet starts from the same weights whether it is trained with shallower nets or alone.
        self.heads = Heads([ElasticLinear(first, classes), head], depth)

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self.heads[0](x)


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
        return super().evaluate(model, split) | {"nonzero": nonzero(extract(model, active_arch(model)))}

    def score(self, program: Program, methods: Methods, split: str) -> Score:
        """The same of an exported program; the weights are those it was made from."""
        score = super().score(program, methods, split)
        return Score(score.metrics | {"nonzero": nonzero(program.methods[0].module)}, score.outputs)


def nonzero(subnet: nn.Module) -> float:
    """Percent of the weights of an extracted net's linear layers, biases aside, that are not zero."""
    weights = [module.weight for module in subnet.modules() if isinstance(module, nn.Linear)]
    return 100 * sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)
