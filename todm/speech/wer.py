"""Word error rate, by jiwer."""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer


@dataclass(frozen=True)
class Wer:
    """Errors of a set of utterances; `wer` in percent of the reference words, above 100 if it must."""

    wer: float
    insertions: int
    deletions: int
    substitutions: int
    words: int


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> Wer:
    """All errors of a set over all its reference words; without any reference word, over one.

    Raises:
        ValueError: the two lists differ in length.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    counts = jiwer.process_words(list(references), list(hypotheses))
    kinds = counts.insertions, counts.deletions, counts.substitutions
    words = sum(map(len, counts.references))
    return Wer(100 * sum(kinds) / max(words, 1), *kinds, words)
