"""Utterances to batches of features: bucketed by duration, augmented, the same on every run, however many there are."""

import dataclasses
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain, count, islice

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler
from lhotse.features.kaldi.layers import Wav2LogFilterBank
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from todm.distributed import WHOLE, Shard
from todm.errors import TodmError
from todm.speech.augment import Augmentation, mask, perturb
from todm.speech.corpus import samples_of, text_of
from todm.speech.features import BINS, SAMPLE_RATE, TAIL, Samples, fbank
from todm.speech.tokens import Tokens

BUCKETS = 10
"""Groups of similar duration that a batch is drawn from."""
BUFFER = 5000
"""Utterances of a corpus read from disk as it goes that are shuffled and bucketed at a time."""
AHEAD = 800.0
"""Audio in seconds that each worker prepares ahead: what it gains on the training lasts while it is disturbed."""
LOG_EPSILON = float(np.log(np.finfo(np.float32).eps))
"""Floor of the features, as in `fbank`."""


@dataclass(frozen=True)
class Batch:
    """Utterances of similar duration, padded with zeros to the longest.

    features (batch, frames, 80) float32; tokens (batch, symbols), both lengths (batch,) int64.
    """

    features: Tensor
    feature_lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    texts: list[str]
    unreadable: list[str] = field(default_factory=list)
    """Utterances that should have been in it."""
    index: int = 0
    """Number of training batches before it."""
    counted: bool = True
    """Whether it is of this process: a batch of fewer utterances than processes gives the last ones a stand-in."""
    log: dict[str, int] = field(default_factory=dict)
    """What the run's log says of it."""


@cache
def _filter_bank() -> Wav2LogFilterBank:
    bank = Wav2LogFilterBank(SAMPLE_RATE, num_filters=BINS, low_freq=20.0, high_freq=-400.0, dither=0.0)
    bank._to_spec = _power  # its own squares the absolute value, whose root is a fifth of the work
    return bank


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


@torch.no_grad()
def fast_fbank(samples: Samples) -> Tensor:
    """`fbank` to a few 1e-3 in a third of the time, for training: (n,) -> (frames, 80)."""
    return _filter_bank()(torch.from_numpy(samples)[None])[0].clamp_min(LOG_EPSILON)


def make_batch(features: list[Tensor], cuts: list[Cut], tokens: Tokens, unreadable: Sequence[str] = ()) -> Batch:
    """Pad the utterances of `cuts`, features (frames, 80) each, into a batch."""
    texts = [text_of(cut) for cut in cuts]
    ids = [torch.tensor(tokens.encode(text), dtype=torch.int64) for text in texts]
    return Batch(
        features=pad_sequence(features, batch_first=True),
        feature_lengths=torch.tensor([len(x) for x in features]),
        tokens=pad_sequence(ids, batch_first=True),
        token_lengths=torch.tensor([len(x) for x in ids]),
        texts=texts,
        unreadable=list(unreadable),
    )


@dataclass(frozen=True)
class _Loader:
    """Reads, augments and batches in any process: (index, cuts) -> batch."""

    tokens: Tokens
    augment: Augmentation | None
    seed: int
    shard: Shard

    def __getitem__(self, item: tuple[int, CutSet]) -> Batch:
        index, cuts = item
        features, read, unreadable = [], [], []
        whole = list(enumerate(cuts))
        # The last batch of a bucket may be smaller than the number of processes.
        part = self.shard.of(whole) if len(whole) >= self.shard.world else whole[self.shard.rank :][:1]
        for place, cut in part or whole[:1]:
            try:
                samples = samples_of(cut)
            except Exception as error:  # whatever the reader of a format raises
                unreadable.append(f"{cut.id}: {' '.join(str(error).split())[:200]}")
                continue
            features.append(self._features(samples, [self.seed, index, place]))
            read.append(cut)
        if not read:
            raise TodmError(f"no utterance of a batch can be read, such as {unreadable[0]}; check the recordings")
        batch = make_batch(features, read, self.tokens, unreadable)
        return batch if part else dataclasses.replace(batch, counted=False)

    def _features(self, samples: Samples, seed: list[int]) -> Tensor:
        if self.augment is None:
            return fast_fbank(samples)
        rng = np.random.default_rng(seed)
        return mask(fast_fbank(perturb(samples, self.augment, rng)), self.augment, rng)


def _epochs(cuts: CutSet, seconds_per_batch: float, seed: int) -> Iterator[CutSet]:
    durations = [cut.duration for cut in (islice(cuts, BUFFER) if cuts.is_lazy else cuts)]
    bins = np.quantile(durations, np.arange(1, BUCKETS) / BUCKETS).tolist()
    buffers = {"buffer_size": BUFFER, "shuffle_buffer_size": BUFFER} if cuts.is_lazy else {}
    with warnings.catch_warnings():  # lhotse would rather read manifests from disk again in every epoch
        warnings.simplefilter("ignore")
        sampler = DynamicBucketingSampler(
            cuts, max_duration=seconds_per_batch, shuffle=True, seed=seed, duration_bins=bins, **buffers
        )
    for epoch in count():
        sampler.set_epoch(epoch)
        yield from sampler


def _lasts(cut: Cut, longest: float) -> bool:
    return cut.duration <= longest


def train_batches(
    cuts: CutSet, tokens: Tokens, *, seconds_per_batch: float, seed: int, start: int = 0,
    augment: Augmentation | None = None, workers: int = 1, warm_updates: int = 0, warm_seconds: float = 2.0,
    unreadable: float = 0.01, shard: Shard = WHOLE,
) -> Iterator[Batch]:  # fmt: skip
    """Endless shuffled batches. Batch i depends on the arguments and i alone, not on `start` or `workers`.

    Args:
        cuts: Training utterances of any sampling rate. A lazy set is never held in memory whole.
        tokens: Symbols of the transcripts.
        seconds_per_batch: Audio in one batch, padding included.
        seed: Of order and augmentation.
        start: Index of the first batch; those before it are not read.
        augment: How utterances are varied; None leaves them as they are.
        workers: Processes that prepare batches ahead; 0 prepares them in this one.
        warm_updates: Number of first batches made of short utterances only: a transducer leaves its plateau
            of blanks sooner on them.
        warm_seconds: Longest utterance of those batches.
        unreadable: Share of utterances that may be left out because they cannot be read. Each is named on stderr.
        shard: The part of each batch that is made, where several processes train.

    Raises:
        TodmError: there is no utterance, or none as short as `warm_seconds`, or too many cannot be read.
    """
    if next(iter(cuts), None) is None:
        raise TodmError("the training split holds no utterances; add some to the corpus")
    order = _epochs(cuts, seconds_per_batch, seed)
    if warm_updates:
        short = cuts.filter(partial(_lasts, longest=warm_seconds))
        if next(iter(short), None) is None:
            shortest = min(cut.duration for cut in cuts)
            raise TodmError(f"warm_seconds {warm_seconds} is below the shortest utterance, {shortest:.2f} s")
        order = chain(islice(_epochs(short, seconds_per_batch, seed), warm_updates), order)
    batches: DataLoader[Batch] = DataLoader(
        _Loader(tokens, augment, seed, shard),  # type: ignore[arg-type]
        batch_size=None,
        sampler=islice(enumerate(order), start, None),
        num_workers=workers,
        generator=torch.Generator(),  # of its own, or it would draw from the one that training uses
        prefetch_factor=max(2, round(AHEAD / seconds_per_batch)) if workers else None,
    )
    return _readable(iter(batches), unreadable)


def _readable(batches: Iterator[Batch], most: float) -> Iterator[Batch]:
    """Name what could not be read, and stop when it is too much."""
    seen, missing = 0, 0
    for batch in batches:
        seen += len(batch.texts) + len(batch.unreadable)
        for name in batch.unreadable:
            missing += 1
            print(f"todm: left out, as it cannot be read: {name}", file=sys.stderr)
            if missing > max(1, most * seen):
                share = f"{missing} of {seen} utterances cannot be read"
                raise TodmError(f"{share}, the last {name}; mend them or raise data.batching.unreadable")
        yield dataclasses.replace(batch, log={"unreadable": missing}) if batch.unreadable else batch


def evaluation_batches(cuts: CutSet, tokens: Tokens, seconds_per_batch: float = 600.0) -> Iterator[Batch]:
    """All utterances once, the shortest first, each with the silence that a recogniser appends."""
    ordered = sorted(cuts, key=lambda cut: (cut.duration, cut.id))
    while ordered:
        size = 1
        while size < len(ordered) and (size + 1) * ordered[size].duration <= seconds_per_batch:
            size += 1
        chosen, ordered = ordered[:size], ordered[size:]
        yield make_batch([fbank(np.concatenate([samples_of(cut), TAIL])) for cut in chosen], chosen, tokens)


def typical_features(cuts: CutSet, count: int = 200) -> Tensor:
    """Features of the first `count` utterances, one after the other: (frames, 80)."""
    return torch.cat([fast_fbank(samples_of(cut)) for cut in islice(cuts, count)])
