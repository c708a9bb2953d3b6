"""STS-B: pairs of English sentences with a similarity from 0 to 5, and a subword vocabulary of the training ones."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor

from todm.fetch import Source
from todm.files import atomic_write

STSB = Source(
    "stsb",
    "https://raw.githubusercontent.com/PhilipMay/stsb-multi-mt/30de0dec4ee199b7f42351d3f1a0b19592955385/data",
    {
        "stsb-en-train.csv": "e1e84fec60bbb598735552f54a35f4949904a484750fd2cb11e2720e49f63da6",
        "stsb-en-dev.csv": "d29586e96558c4eb52cf5ea5d14e9c24d3bf0e44f111b017caba43a5adc33226",
        "stsb-en-test.csv": "11523b625219e94e9ca05d2816b5f02cac1614c5894fe657376fa0806378d053",
    },
)
PAD = 0


@dataclass(frozen=True)
class Pairs:
    """One split."""

    first: list[str]
    second: list[str]
    scores: Tensor
    """(pairs,) similarity from 0 to 5."""

    def sentences(self) -> list[str]:
        """Each different sentence once, in the order of its first appearance."""
        return list(dict.fromkeys(sentence for pair in zip(self.first, self.second, strict=True) for sentence in pair))


def load_pairs(folder: Path, split: str) -> Pairs:
    """A split of STS-B from its CSV file."""
    with open(folder / f"stsb-en-{split}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    scores = torch.tensor([float(row[2]) for row in rows])
    return Pairs([row[0] for row in rows], [row[1] for row in rows], scores)


class Subwords:
    """Sentences to rows of symbols, padded with 0 on the right.

    Args:
        model: A sentencepiece model.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    @classmethod
    def trained(cls, sentences: list[str], size: int, cache: Path) -> "Subwords":
        """A byte-pair vocabulary of `size` symbols, case-folded, made from `sentences` or kept in `cache`."""
        path = cache / STSB.name / f"subwords-{size}.model"
        if not path.exists():
            model = io.BytesIO()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences), model_writer=model, vocab_size=size, model_type="bpe",
                normalization_rule_name="nmt_nfkc_cf", pad_id=PAD, unk_id=1, bos_id=-1, eos_id=-1,
                num_threads=1, minloglevel=2,
            )  # fmt: skip
            atomic_write(path, model.getvalue())
        return cls(path.read_bytes())

    def __len__(self) -> int:
        return int(self._processor.vocab_size())

    def rows(self, sentences: list[str], length: int) -> Tensor:
        """(sentences, length) int64, cut or padded to `length`."""
        rows = torch.full((len(sentences), length), PAD)
        for row, symbols in zip(rows, self._processor.encode(sentences), strict=True):
            row[: len(symbols)] = torch.tensor(symbols[:length])
        return rows
