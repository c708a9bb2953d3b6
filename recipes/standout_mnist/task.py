"""Ba & Frey's network for MNIST, two hidden layers of 1000 rectified units, with elastic width and depth."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from todm import Choice
from todm.dropout import Site
from todm.elastic import ElasticLinear, ElasticStack
from todm.errors import TodmError
from todm.recipe import STRICT, Count
from todm.recipes.mnist import MnistData, MnistTask, load_mnist
from todm.recipes.standout_mnist.norb import load_norb
from todm.recipes.standout_mnist.pretrain import Pretraining, pretrained
from todm.space import Width


@dataclass(frozen=True, config=STRICT)
class StandoutData(MnistData):
    """Which pictures are used and how they are put into batches."""

    set: Literal["mnist", "norb"] = "mnist"
    """Digits, or the toys of small NORB, whose files stand in `folder`."""


@dataclass(frozen=True, config=STRICT)
class StandoutModel:
    """Sizes of the network."""

    hidden: list[Count] = Field(default_factory=lambda: [125, 250, 500, 1000])
    """Options for the width of the hidden layers."""
    depth: list[Count] = Field(default_factory=lambda: [1, 2])
    """Options for their number."""
    pretraining: Pretraining = Field(default_factory=Pretraining)
    """Training without labels that comes first."""


class Layer(nn.Module):
    """Rectified units with a place for dropout: (batch, inputs) -> (batch, width)."""

    def __init__(self, inputs: Width, width: Width) -> None:
        super().__init__()
        self.linear = ElasticLinear(inputs, width)
        self.drop = Site("hidden", width, source_width=inputs)

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        return self.drop(torch.relu(z), preactivation=z, source=x)


class Perceptron(nn.Module):
    """Pixels (batch, pixels) in 0..1 -> logits (batch, classes)."""

    def __init__(self, pixels: int, classes: int, config: StandoutModel) -> None:
        super().__init__()
        width, depth = Choice("hidden", config.hidden), Choice("depth", config.depth)
        self.drop = Site("input", pixels)
        layers = [Layer(width if index else pixels, width) for index in range(depth.full)]
        self.layers = ElasticStack(layers, depth)
        self.head = ElasticLinear(width, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.drop(pixels)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class StandoutTask(MnistTask):
    """Digits (or toys) by a perceptron whose hidden units drop out."""

    Data, Model = StandoutData, StandoutModel

    def __init__(self, data: StandoutData, model: StandoutModel, seed: int, cache: Path) -> None:
        if data.set == "norb" and data.folder is None:
            raise TodmError("small NORB has no download here: name the folder of its files with --data.folder")
        images = load_norb(data.folder) if data.set == "norb" and data.folder else load_mnist(data.folder, cache)
        super().__init__(data, images, seed)
        self.model, self.cache = model, cache

    def build(self) -> Perceptron:
        """The supernet, its hidden layers pre-trained if the recipe says so."""
        pixels = self.train.shape[1]
        net = Perceptron(pixels, self.images.classes, self.model)
        if self.model.pretraining.epochs:
            sizes = [pixels, *[max(self.model.hidden)] * max(self.model.depth)]
            done = pretrained(sizes, self.train, self.model.pretraining, self.seed, self.cache)
            for layer, start in zip(net.layers, done, strict=True):
                layer.linear.load_state_dict(start.state_dict())  # type: ignore[union-attr]
        return net
