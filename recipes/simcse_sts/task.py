"""Sentence embeddings in two tiers: unsupervised SimCSE on sentences, then supervised on pairs with a similarity."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import NonNegativeInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from todm.plain_task import PlainTask
from todm.program import Program
from todm.recipe import STRICT, Count, Positive
from todm.recipes.simcse_sts.losses import cosine_loss, rank_correlation, simcse_loss, similarities
from todm.recipes.simcse_sts.sentences import PAD, STSB, Subwords, load_pairs
from todm.recipes.transformer import Transformer, TransformerConfig
from todm.task import LossOutput


@dataclass(frozen=True, config=STRICT)
class SentenceData:
    """How the two tiers are laid out."""

    folder: str | None = None
    """Folder that holds STS-B's stsb-en-{train,dev,test}.csv; else $TODM_DATA/stsb or a download."""
    vocabulary: Count = 4000
    """Subwords, made of the training sentences."""
    length: Count = 24
    """Longest sentence in subwords; the rest of a longer one is cut off."""
    batch: Count = 48
    """Sentences, or pairs, in a training batch."""
    unsupervised: NonNegativeInt = 300
    """Number of first updates that make up tier 1; all later ones are tier 2."""
    temperature: Positive = 0.05
    """Of SimCSE's softmax."""
    views: Literal["two masks", "one mask"] = "two masks"
    """Whether the two embeddings that a loss compares see dropout masks of their own; `one mask` is the control."""


class Batch(NamedTuple):
    """One sentence (tier 1) or two (tier 2) a row."""

    first: Tensor
    """(batch, length) subwords."""
    second: Tensor | None = None
    scores: Tensor | None = None
    """(batch,) similarity from 0 to 1."""


class Encoder(nn.Module):
    """Subwords (batch, length), padded with 0, -> embedding (batch, width): the mean of the transformer's states."""

    def __init__(self, config: TransformerConfig, symbols: int, length: int) -> None:
        super().__init__()
        self.trunk = Transformer(config, symbols, length, causal=False)
        # What every sentence has in common, which positions are, must be little beside what sets two apart.
        nn.init.normal_(self.trunk.position.weight, std=0.02)

    def forward(self, symbols: Tensor) -> Tensor:
        mask = symbols != PAD
        states = self.trunk(symbols, mask)
        weight = mask.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1)


class SimCSETask(PlainTask):
    """Embed sentences so that the cosine of two of them ranks their similarity.

    Args:
        data: The two tiers.
        model: Sizes of the encoder.
        seed: Of the order of sentences and pairs.
        cache: Where a download and the vocabulary are kept.

    Raises:
        TodmError: STS-B is missing.
    """

    Data = SentenceData
    Model = TransformerConfig
    pipeline = "sentence-similarity"
    output = "vector"  # the exporter names an inner value "embedding"

    def __init__(self, data: SentenceData, model: TransformerConfig, seed: int, cache: Path) -> None:
        self.data, self.config, self.seed = data, model, seed
        folder = STSB.fetch(data.folder, cache)
        self.pairs = {split: load_pairs(folder, split) for split in ("train", "dev", "test")}
        sentences = self.pairs["train"].sentences()
        self.subwords = Subwords.trained(sentences, data.vocabulary, cache)
        self.sentences = self.subwords.rows(sentences, data.length)
        self.rows = {
            split: (self.subwords.rows(pairs.first, data.length), self.subwords.rows(pairs.second, data.length))
            for split, pairs in self.pairs.items()
        }

    def provenance(self) -> dict[str, str]:
        """Which sentences were used, for run.json."""
        return {"source": "STS-B, English", "licence": "cc-by-sa-4.0", **STSB.files}

    def build(self) -> Encoder:
        """The supernet."""
        return Encoder(self.config, len(self.subwords), self.data.length)

    def train_batches(self, start: int) -> Iterator[Batch]:
        """Sentences for tier 1, then pairs for tier 2, each batch a function of (seed, index)."""
        data, (first, second) = self.data, self.rows["train"]
        scores = self.pairs["train"].scores / 5
        index = start
        while True:
            random = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
            if index < data.unsupervised:
                # Without replacement: a sentence twice in a batch would be its own negative.
                chosen = torch.randperm(len(self.sentences), generator=random)[: data.batch]
                yield Batch(_trimmed(self.sentences[chosen]))
            else:
                chosen = torch.randperm(len(scores), generator=random)[: data.batch]
                one, other = _trimmed(torch.stack([first[chosen], second[chosen]]))
                yield Batch(one, other, scores[chosen])
            index += 1

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """SimCSE's loss on sentences, squared error of the cosine on pairs.

        A subnet imitates how the largest net ranks the batch's second embeddings by similarity to each first one.
        """
        device, temperature = next(model.parameters()).device, self.data.temperature
        with torch.random.fork_rng(enabled=self.data.views == "one mask"):
            first = model(batch.first.to(device)).float()
        second = model((batch.first if batch.second is None else batch.second).to(device)).float()
        if batch.scores is None:
            loss = simcse_loss(first, second, temperature)
        else:
            loss = cosine_loss(first, second, batch.scores.to(device))
        weight = torch.full((len(first),), 1 / len(first), device=device)
        return LossOutput(loss, similarities(first, second, temperature), weight)

    def samples(self, split: str) -> dict[str, Tensor]:
        """The sentences of a split's pairs, first and second by turns (2 pairs, length)."""
        return {"symbols": torch.stack(self.rows[split], 1).flatten(0, 1)}

    def metrics(self, outputs: Tensor, split: str) -> dict[str, float]:
        """Spearman's rank correlation of cosine and human score, in percent, and what it lacks of 100."""
        scores = self.pairs[split].scores
        rho = 100 * rank_correlation(_cosines(outputs), scores)
        return {"shortfall": 100 - rho, "spearman": rho}

    def decisions(self, outputs: Tensor) -> list[str]:
        """The similarity of each pair from 0 to 5, rounded."""
        return [str(round(score)) for score in (5 * _cosines(outputs)).tolist()]

    def program(self, subnet: nn.Module) -> Program:
        """The encoder with its vocabulary, a sentencepiece model."""
        program = super().program(subnet)
        return Program(program.methods, assets={"subwords.model": self.subwords.model})


def _cosines(outputs: Tensor) -> Tensor:
    """(2 pairs, width) embeddings by turns -> (pairs,)."""
    return F.cosine_similarity(outputs[0::2], outputs[1::2])


def _trimmed(rows: Tensor) -> Tensor:
    """(..., length) without the columns that are padding in every row."""
    return rows[..., : int((rows != PAD).sum(-1).max())]
