"""The task: undo halving and damage of luminance pictures, of kinds that training did not meet."""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from todm.program import Method, Methods, Program
from todm.recipe import STRICT, Count
from todm.recipes.annealed_sr.degrade import REACH, SCALE, UNSEEN, Degradation, training_mix
from todm.recipes.annealed_sr.model import Upscaler, UpscalerConfig
from todm.recipes.annealed_sr.pictures import SETS, load_pictures
from todm.recipes.annealed_sr.psnr import PEAK, grey_levels, psnr
from todm.recipes.annealed_sr.tiles import TILE, in_tiles
from todm.task import LossOutput, Score

DEV = 8
"""Every so many T91 pictures, one is kept for the dev set."""


@dataclass(frozen=True, config=STRICT)
class PictureData:
    """Pictures and patches."""

    folder: str | None = None
    """Folder with T91, Set5 and Set14; else $TODM_DATA/sr, or a download."""
    batch: Count = 16
    """Patches of a batch."""
    patch: Count = 24
    """Side of a patch of the small picture, in pixels."""
    tested: Count = 14
    """Pictures used of each test set, the first ones by name."""
    proved: Count = 5
    """Test pictures that exported files are scored on, the first ones: 5 is Set5."""


class Example(NamedTuple):
    """A degraded picture, (height, width) uint8, and the one it was made from, (2 height, 2 width)."""

    degradation: str
    small: np.ndarray
    large: np.ndarray


class UpscaleTask:
    """Super-resolution by 2 of damaged pictures: T91 in, Set5 and Set14 out."""

    Data = PictureData
    Model = UpscalerConfig
    pipeline = "image-to-image"
    unit = "of 255"

    def __init__(self, data: PictureData, model: UpscalerConfig, seed: int, cache: Path) -> None:
        self.data, self.model, self.seed = data, model, seed
        self.pictures = load_pictures(data.folder, cache)
        known = list(self.pictures.sets["T91"].values())
        self.kept = known[::DEV]
        small = SCALE * data.patch + 2 * REACH
        self.train = [picture for i, picture in enumerate(known) if i % DEV and min(picture.shape) >= small]
        self.test = [p for name in SETS for p in list(self.pictures.sets[name].values())[: data.tested]]

    def provenance(self) -> dict[str, str]:
        """Which pictures were used, for run.json."""
        return {
            "source": self.pictures.source, "sha256": self.pictures.checksum,
            "licence": "research data without an explicit licence",
        }  # fmt: skip

    def build(self) -> nn.Module:
        """The supernet."""
        return Upscaler(self.model)

    # -- training ---------------------------------------------------------------------------------------------

    def train_batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Small and large patches, (batch, 1, patch, patch) and twice the size, in 0..1."""
        index = start
        while True:
            rng = np.random.default_rng([self.seed, index])
            small, large = zip(*(self._patch(rng) for _ in range(self.data.batch)), strict=True)
            yield _tensor(np.stack(small)[:, None]), _tensor(np.stack(large)[:, None])
            index += 1

    def _patch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Cut out with what the blur looks at around it, turned, degraded, and the surroundings cut off."""
        picture = self.train[rng.integers(len(self.train))]
        side = SCALE * self.data.patch + 2 * REACH
        top, left = (rng.integers(size - side + 1) for size in picture.shape)
        large = np.rot90(picture[top : top + side, left : left + side], int(rng.integers(4)))
        large = large[:, ::-1] if rng.random() < 0.5 else large
        small = training_mix(rng)(large, rng)
        rim = REACH // SCALE
        return small[rim:-rim, rim:-rim], large[REACH:-REACH, REACH:-REACH]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> LossOutput:
        """Mean absolute error. A picture is no distribution: there is nothing for a divergence to compare."""
        small, large = batch
        loss = F.l1_loss(model(small).float(), large)
        return LossOutput(loss, torch.zeros(1, 1), torch.zeros(1))

    # -- evaluation -------------------------------------------------------------------------------------------

    @cached_property
    def _dev(self) -> list[Example]:
        """Held-out pictures of T91, each degraded twice as training would."""
        result = []
        for index, large in enumerate(self.kept * 2):
            rng = np.random.default_rng([0, index])
            result.append(Example("seen", training_mix(rng)(large, rng), large))
        return result

    @cached_property
    def _test(self) -> list[Example]:
        """Test pictures: halved only, as training would, and in every unseen way; the same for all seeds."""
        result = []
        for index, large in enumerate(self.test):
            for number, (name, degradation) in enumerate(({"clean": Degradation()} | UNSEEN).items()):
                rng = np.random.default_rng([1, index, number])
                result.append(Example(name, degradation(large, rng), large))
            rng = np.random.default_rng([2, index])
            result.append(Example("seen", training_mix(rng)(large, rng), large))
        return result

    def _measure(self, examples: list[Example], upscale: Callable[[np.ndarray], np.ndarray]) -> list[float]:
        """PSNR of each example; `upscale` takes and gives luminance in 0..1. Values are rounded as in a file."""
        decibels = []
        for example in examples:
            large = np.rint(PEAK * upscale(example.small.astype(np.float32) / PEAK)).clip(0, PEAK)
            decibels.append(psnr(example.large, large, border=SCALE))
        return decibels

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """The error in grey levels and the PSNR in dB: on dev of degradations as in training, on test of unseen ones.

        On test also the PSNR of each degradation, and of the unseen ones by set. Means are over pictures.
        """
        examples = self._dev if split == "dev" else self._test
        decibels = self._measure(examples, lambda small: model(torch.from_numpy(small)[None, None])[0, 0].numpy())
        return _summary(examples, decibels)

    # -- deployment -------------------------------------------------------------------------------------------

    def program(self, subnet: nn.Module) -> Program:
        """One tile; any size where the runtime has dynamic axes."""
        method = Method(
            name="upscale", file="model", module=subnet.eval(), inputs={"small": torch.zeros(1, 1, TILE, TILE)},
            outputs=("large",), dynamic={"small": {2: "height", 3: "width"}},
        )  # fmt: skip
        return Program((method,), metadata={"scale": str(SCALE), "input": "luminance, 0..1"})

    def score(self, program: Program, methods: Methods, split: str) -> Score:
        """In tiles; on test the unseen degradations of a few pictures. A decision is a picture's PSNR to 0.01 dB."""
        proved = {id(picture) for picture in self.test[: self.data.proved]}
        unseen = [e for e in self._test if e.degradation in UNSEEN and id(e.large) in proved]
        examples = self._dev if split == "dev" else unseen
        decibels = self._measure(examples, lambda small: in_tiles(lambda tile: methods["upscale"](tile)[0], small))
        return Score(_summary(examples, decibels), [f"{value:.2f}" for value in decibels])


def _tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures.astype(np.float32) / np.float32(PEAK))


def _summary(examples: list[Example], decibels: list[float]) -> dict[str, float]:
    """Means over examples, `psnr` that of all unseen degradations where there are any."""
    by_kind: dict[str, list[float]] = {}
    for example, value in zip(examples, decibels, strict=True):
        by_kind.setdefault(example.degradation, []).append(value)
    unseen = [value for kind, values in by_kind.items() if kind in UNSEEN for value in values]
    overall = mean(unseen or decibels)
    kinds = {f"psnr_{kind}": mean(values) for kind, values in by_kind.items()} if unseen else {}
    return {"rmse": grey_levels(overall), "psnr": overall, **kinds}
