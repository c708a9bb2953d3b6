"""MNIST (LeCun, Cortes, Burges) and the task of classifying its digits, for the recipes that train on it."""

import functools
import hashlib
import io
import math
import os
import sys
import urllib.request
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from todm.errors import TodmError
from todm.files import atomic_write
from todm.plain_task import PlainTask
from todm.recipe import STRICT, Count
from todm.task import LossOutput

HOME = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
CHECKSUM = "9e224f8b3d13bebca8cd41a25b077fcce1e109558d4538574daeec0ac0ddd4aa"
"""SHA-256 over labels and pixels of both splits, each sorted by them: it does not depend on who packed the file."""
TIMEOUT = 20.0
"""Seconds to wait for an answer from the network."""
SHUFFLE = 2013
"""Seed of the one order in which the training images are split into dev and train."""


@plain_dataclass(frozen=True)
class Images:
    """Labelled pictures as flat vectors of bytes."""

    train: Tensor
    """(pictures, pixels), uint8; so is `test`."""
    train_labels: Tensor
    """(pictures,), int64; so is `test_labels`."""
    test: Tensor
    test_labels: Tensor
    classes: int
    source: str
    """Where they came from, in a sentence."""
    licence: str


@dataclass(frozen=True, config=STRICT)
class MnistData:
    """Which pictures are used and how they are put into batches."""

    folder: str | None = None
    """Folder that holds mnist.npz; else $TODM_DATA/mnist, else a download."""
    train: Annotated[int, Field(ge=1, le=60_000)] = 55_000
    """Training pictures."""
    dev: Annotated[int, Field(ge=1, le=30_000)] = 5_000
    """Pictures, kept out of training, that search chooses on."""
    test: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    """Pictures that results are reported on."""
    batch: Count = 256
    """Pictures in a training batch."""
    shift: NonNegativeInt = 0
    """Training pictures are moved by up to so many pixels each way, anew each time; 0 leaves them as they are."""

    def __post_init__(self) -> None:
        if self.train + self.dev > 60_000:
            raise ValueError("train and dev together exceed the 60000 training pictures")
        if self.batch > self.train:
            raise ValueError("batch exceeds the number of training pictures")


def load_mnist(folder: str | None, cache: Path) -> Images:
    """The two splits of MNIST, each in one order whoever packed the file.

    Raises:
        TodmError: it is not there and cannot be downloaded, or has been changed.
    """
    path = Path(folder, "mnist.npz") if folder else Path(os.environ.get("TODM_DATA", ""), "mnist", "mnist.npz")
    if folder or ("TODM_DATA" in os.environ and path.is_file()):
        source = f"MNIST from {path}"
    else:
        path, source = cache / "mnist.npz", f"MNIST from {HOME}"
        if not path.is_file():
            print(f"downloading {HOME}", file=sys.stderr)
            atomic_write(path, _download())
    return _read(path, source)


def _download() -> bytes:
    """The file at its home, checked before it is kept."""
    try:
        with urllib.request.urlopen(HOME, timeout=TIMEOUT) as response:
            content: bytes = response.read()
        _unpack(io.BytesIO(content))
    except (OSError, ValueError) as error:
        hint = "put mnist.npz into a folder and name it with --data.folder"
        raise TodmError(f"MNIST could not be downloaded from {HOME} ({error}); {hint}") from error
    return content


@functools.lru_cache(maxsize=1)
def _read(path: Path, source: str) -> Images:
    try:
        arrays = _unpack(path)
    except (OSError, ValueError) as error:
        raise TodmError(f"{path} is not the MNIST file ({error}); name its folder with --data.folder") from error
    train, train_labels, test, test_labels = map(torch.from_numpy, arrays)
    return Images(train, train_labels, test, test_labels, classes=10, source=source, licence="CC BY-SA 3.0")


def _unpack(file: Path | io.BytesIO) -> list[np.ndarray]:
    """Pictures and labels of train, then of test, sorted by label and pixels.

    Raises:
        ValueError: the file holds something else.
    """
    with np.load(file, allow_pickle=False) as content:
        keras = {f"{kind}_{split}" for kind in "xy" for split in ("train", "test")} <= set(content.files)
        names = ("x_{}", "y_{}") if keras else ("{}_images", "{}_labels")
        try:
            parts = [content[name.format(split)] for split in ("train", "test") for name in names]
        except KeyError as error:
            raise ValueError(f"no array {error} in it") from None
    digest, arrays = hashlib.sha256(), []
    for images, labels in zip(parts[::2], parts[1::2], strict=True):
        rows = np.concatenate([labels.astype(np.uint8)[:, None], images.reshape(len(labels), -1)], axis=1)
        rows = rows[np.argsort(rows.view(f"S{rows.shape[1]}").ravel(), kind="stable")]
        digest.update(rows.tobytes())
        arrays += [rows[:, 1:].copy(), rows[:, 0].astype(np.int64)]
    if digest.hexdigest() != CHECKSUM:
        raise ValueError("it does not have the pinned checksum")
    return arrays


class MnistTask(PlainTask):
    """Classifies digits; a subclass says with which network.

    Args:
        data: Which pictures.
        images: MNIST, or pictures in its place.
        seed: Of the order of training pictures.
    """

    pipeline = "image-classification"

    def __init__(self, data: MnistData, images: Images, seed: int) -> None:
        self.data, self.images, self.seed = data, images, seed
        order = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(SHUFFLE))
        dev, train = order[: data.dev], order[data.dev : data.dev + data.train]
        # Sorted by label at the source: the first ones of the test split would be all zeros.
        test = torch.randperm(len(images.test), generator=torch.Generator().manual_seed(SHUFFLE))[: data.test]
        self.labels = {"dev": images.train_labels[dev], "test": images.test_labels[test]}
        self.pictures = {"dev": images.train[dev], "test": images.test[test]}
        self.train, self.train_labels = images.train[train], images.train_labels[train]

    @abstractmethod
    def build(self) -> nn.Module:
        """The supernet: pictures (batch, pixels) in 0..1 -> logits (batch, classes)."""

    def provenance(self) -> dict[str, str]:
        """Which pictures were used, for run.json."""
        return {"source": self.images.source, "licence": self.images.licence}

    def train_batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(pictures, labels); every epoch in an order of its own, which (seed, epoch) decides."""
        per_epoch, index = len(self.train) // self.data.batch, start
        order, epoch = torch.empty(0), -1
        while True:
            if index // per_epoch != epoch:
                epoch = index // per_epoch
                generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
                order = torch.randperm(len(self.train), generator=generator)
            place = index % per_epoch * self.data.batch
            rows = order[place : place + self.data.batch]
            pictures = self.train[rows]
            if self.data.shift:
                generator = torch.Generator().manual_seed(1_000_003 * self.seed + 500_000 + index)
                pictures = moved(pictures, self.data.shift, generator)
            yield scaled(pictures), self.train_labels[rows]
            index += 1

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> LossOutput:
        """Cross-entropy."""
        device = next(model.parameters()).device
        pictures, labels = (part.to(device) for part in batch)
        logits = model(pictures).float()
        return LossOutput(cross_entropy(logits, labels), logits, logits.new_full((len(labels),), 1 / len(labels)))

    def samples(self, split: str) -> dict[str, Tensor]:
        """The pictures of a split."""
        return {"pixels": scaled(self.pictures[split])}

    def metrics(self, outputs: Tensor, split: str) -> dict[str, float]:
        """Error in percent."""
        return {"error": 100 * (outputs.argmax(-1) != self.labels[split][: len(outputs)]).double().mean().item()}

    def decisions(self, outputs: Tensor) -> list[str]:
        """The class of each picture."""
        return [str(label) for label in outputs.argmax(-1).tolist()]


def moved(pictures: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each picture (batch, side * side) moved by -most..most pixels along both axes; zeros come in from outside."""
    count, side = len(pictures), math.isqrt(pictures.shape[1])
    places = pad(pictures.view(count, side, side), (most, most, most, most)).unfold(1, side, 1).unfold(2, side, 1)
    down, right = torch.randint(2 * most + 1, (2, count), generator=generator)
    return places[torch.arange(count), down, right].reshape(count, -1)


def scaled(pictures: Tensor) -> Tensor:
    """Bytes -> float32 in 0..1."""
    return pictures.float().div_(255)
