"""Intervals of word error rates and their differences: a bootstrap over seeds and utterances at once.

Bisani & Ney 2004 (ICASSP) for utterances, both systems on the same ones; seeds are drawn besides, the same for both.
"""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


class Bootstrap:
    """Resamples shared by all systems of a test set.

    Args:
        words: Words of each utterance, (utterances,).
        seeds: Number of trainings of every system.
        seed: Of the resampling.
    """

    def __init__(self, words: np.ndarray, seeds: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.words, self.seeds = words.astype(float), seeds
        self._utterances = rng.multinomial(len(words), np.full(len(words), 1 / len(words)), RESAMPLES).astype(float)
        self._seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES).astype(float)

    def rates(self, errors: np.ndarray) -> np.ndarray:
        """Word error rate in percent of each resample, (resamples,), for errors (seeds, utterances)."""
        of_resample = ((self._seeds @ errors) * self._utterances).sum(1)
        return 100 * of_resample / (self.seeds * (self._utterances @ self.words))

    def rate(self, errors: np.ndarray) -> Interval:
        """Word error rate in percent."""
        return self.interval(100 * errors.sum() / (self.seeds * self.words.sum()), self.rates(errors))

    def difference(self, errors: np.ndarray, reference: np.ndarray) -> Interval:
        """Word error rate above the reference's, in points."""
        value = 100 * (errors.sum() - reference.sum()) / (self.seeds * self.words.sum())
        return self.interval(value, self.rates(errors) - self.rates(reference))

    def relative(self, errors: list[np.ndarray], references: list[np.ndarray]) -> Interval:
        """Mean over pairs of systems of the difference relative to the reference, in percent."""
        pairs = list(zip(errors, references, strict=True))
        value = float(np.mean([100 * (mine.sum() / its.sum() - 1) for mine, its in pairs]))
        draws = np.mean([100 * (self.rates(mine) / self.rates(its) - 1) for mine, its in pairs], axis=0)
        return self.interval(value, draws)

    @staticmethod
    def interval(value: float, draws: np.ndarray) -> Interval:
        """The percentile interval of an estimate."""
        low, high = np.quantile(draws, [0.025, 0.975])
        return Interval(float(value), float(low), float(high))
