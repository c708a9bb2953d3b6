"""Connected digits among other speakers, from features that are computed once for all trainings of a seed."""

import dataclasses
import json
import os
from collections.abc import Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Literal

import jiwer
import torch
from pydantic.dataclasses import dataclass
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from todm.distributed import WHOLE, Shard
from todm.recipe import STRICT, Count
from todm.recipes.digits.task import DigitsData, DigitsTask
from todm.speech.batches import Batch
from todm.speech.decode import greedy
from todm.speech.encoder import subsampled
from todm.speech.task import TransducerConfig
from todm.speech.transducer import Transducer


@dataclass(frozen=True, config=STRICT)
class Mistakes:
    """What a net got wrong on a split, utterance by utterance."""

    errors: list[int]
    """Words substituted, deleted or inserted."""
    words: list[int]
    """Words said."""


@dataclass(frozen=True, config=STRICT)
class ClaimData(DigitsData):
    """The digits, and how much of what they are varied into is kept."""

    kept: Count = 2000
    """Batches of a seed on disk, of 1 MB; a training that is longer meets them again."""


@dataclass(frozen=True, config=STRICT)
class ClaimModel(TransducerConfig):
    """Sizes of the recogniser, and what its subnets learn from."""

    imitate: Literal["paths", "cells", "vocabulary", "encoder"] = "paths"
    """What a subnet imitates: the collapsed lattice, its cells weighted by the teacher's occupancy or all alike; the
    lattice over the whole vocabulary; or the encoder's vectors (with `training.divergence: squared`)."""


class ClaimTask(DigitsTask):
    """The digits task with its batches kept on disk: whatever is trained with one seed sees the same numbers."""

    Data = ClaimData
    Model = ClaimModel
    config: ClaimModel

    def __init__(self, data: ClaimData, model: ClaimModel, seed: int, cache: Path) -> None:
        super().__init__(data, model, seed, cache)
        varied = dataclasses.asdict(data)  # type: ignore[call-overload]
        self.kept = varied.pop("kept")
        asked = json.dumps([self.prepared.checksum, varied, seed], sort_keys=True)
        self.batches = cache / "claim-batches" / sha256(asked.encode()).hexdigest()[:16]

    def train_batches(self, start: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        """The batches from `start` on: those on disk, new ones that are put there, after `kept` the same again."""
        self.batches.mkdir(parents=True, exist_ok=True)
        fresh: Iterator[Batch] | None = None
        for index in count(start):
            if index % self.kept == 0:
                fresh = None
            path = self.path(index)
            if fresh is not None or not path.exists():
                fresh = fresh or super().train_batches(index % self.kept, shard)
                _save(next(fresh), path)
            # Not the batch that was made: that one is a little more exact.
            yield dataclasses.replace(_load(path), index=index)

    def path(self, index: int) -> Path:
        """Where a batch is kept."""
        return self.batches / f"{index % self.kept:06d}.safetensors"

    def seconds_of(self, updates: int) -> list[float]:
        """Audio in each of the first batches, padding not counted."""
        found = []
        for index in range(updates):
            with safe_open(self.path(index), "pt") as file:
                found.append(float(file.get_tensor("feature_lengths").sum()) / 100)
        return found

    def taught(
        self, model: Transducer, encoded: Tensor, tokens: Tensor, collapsed: Tensor, occupancy: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The teacher's lesson that `imitate` names."""
        possible = (occupancy > 0).to(occupancy.dtype)
        match self.config.imitate:
            case "paths":
                return collapsed, occupancy
            case "cells":
                return collapsed, possible
            case "vocabulary":
                return model.lattice(encoded, tokens).float(), occupancy
            case "encoder":
                return encoded, possible.amax(-1)

    @torch.inference_mode()
    def mistakes(self, model: nn.Module, split: str) -> Mistakes:
        """Greedy decoding of whole utterances, scored one by one, in the order of `evaluation_batches`."""
        assert isinstance(model, Transducer)
        errors, words = [], []
        for batch in self._batches(split):
            encoded = model.encoder(batch.features)
            ids = greedy(encoded, subsampled(batch.feature_lengths), model.predictor, model.joiner)
            for symbols, text in zip(ids, batch.texts, strict=True):
                counts: Any = jiwer.process_words(text, self.corpus.tokens.decode(symbols))
                errors.append(counts.substitutions + counts.deletions + counts.insertions)
                words.append(len(text.split()))
        return Mistakes(errors, words)


def _save(batch: Batch, path: Path) -> None:
    tensors: dict[str, Tensor] = {
        "features": batch.features.half(), "feature_lengths": batch.feature_lengths,
        "tokens": batch.tokens, "token_lengths": batch.token_lengths,
    }  # fmt: skip
    part = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, part, {"texts": json.dumps(batch.texts)})
    os.replace(part, path)


def _load(path: Path) -> Batch:
    with safe_open(path, "pt") as file:
        texts = json.loads(file.metadata()["texts"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return Batch(**tensors | {"features": tensors["features"].float()}, texts=texts, unreadable=[])
