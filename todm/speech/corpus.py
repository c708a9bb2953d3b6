"""Utterances (lhotse cuts) to batches of features: bucketed by duration, augmented, the same on every run."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, count, islice
from pathlib import Path

import numpy as np
import pydantic.dataclasses
import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.augmentation import Speed
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler
from lhotse.features.kaldi.layers import Wav2LogFilterBank
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from todm.distributed import WHOLE, Shard
from todm.errors import TodmError
from todm.recipe import STRICT, Fraction
from todm.speech.features import BINS, LOG_EPSILON, SAMPLE_RATE, TAIL, Samples, fbank, mono_16k
from todm.speech.tokens import Tokens

BUCKETS = 10
"""Groups of similar duration that a batch is drawn from."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Augmentation:
    """How training utterances are varied. Zero, or a single speed of 1, turns a kind off."""

    speeds: list[float] = field(default_factory=lambda: [0.9, 1.0, 1.1])
    """Factors of speed and pitch, drawn alike."""
    gain: NonNegativeFloat = 6.0
    """Largest change of level, up or down, in dB."""
    noise: Fraction = 0.5
    """Share of utterances that get white noise."""
    noise_snr: tuple[float, float] = (10.0, 40.0)
    """Signal-to-noise ratio of that noise, from and to, in dB."""
    tail: NonNegativeFloat = 0.5
    """Longest digital silence appended, in seconds: on a device, half a second ends each utterance."""
    frequency_masks: NonNegativeInt = 2
    """Bands of mel bins masked (SpecAugment, Park et al. 2019)."""
    frequency_width: int = Field(default=10, ge=0, le=BINS)
    """Widest band, in bins."""
    time_masks: NonNegativeInt = 2
    """Stretches of frames masked."""
    time_width: NonNegativeInt = 10
    """Longest stretch, in frames of 10 ms; never more than a tenth of the utterance."""


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


@dataclass(frozen=True)
class Corpus:
    """Utterances by split, and the symbols they are written in."""

    cuts: dict[str, CutSet]
    tokens: Tokens

    def utterances(self, split: str) -> Iterator[tuple[Samples, str]]:
        """Samples (n,) at 16 kHz and words of every utterance of a split, in the order of its manifest."""
        return ((samples_of(cut), text_of(cut)) for cut in self.cuts[split])


def samples_of(cut: Cut) -> Samples:
    """The audio of a cut, mixed down: (n,) at 16 kHz."""
    return mono_16k(cut.load_audio().T, cut.sampling_rate)


def text_of(cut: Cut) -> str:
    """The words of a cut."""
    return " ".join(supervision.text for supervision in cut.supervisions)


@cache
def _filter_bank() -> Wav2LogFilterBank:
    return Wav2LogFilterBank(SAMPLE_RATE, num_filters=BINS, low_freq=20.0, high_freq=-400.0, dither=0.0)


@torch.no_grad()
def fast_fbank(samples: Samples) -> Tensor:
    """`fbank` to a few 1e-3 in a third of the time, for training: (n,) -> (frames, 80)."""
    return _filter_bank()(torch.from_numpy(samples)[None])[0].clamp_min(LOG_EPSILON)


def perturb(samples: Samples, augment: Augmentation, rng: np.random.Generator) -> Samples:
    """Vary speed, level, noise and final silence of samples (n,) at 16 kHz."""
    speed = augment.speeds[rng.integers(len(augment.speeds))]
    if speed != 1.0:
        samples = Speed(speed)(samples[None], SAMPLE_RATE)[0]
    samples = samples * np.float32(10 ** (rng.uniform(-augment.gain, augment.gain) / 20))
    if rng.random() < augment.noise:
        level = np.sqrt(np.mean(np.square(samples))) * 10 ** (-rng.uniform(*augment.noise_snr) / 20)
        samples = samples + np.float32(level) * rng.standard_normal(len(samples), dtype=np.float32)
    tail = round(rng.uniform(0, augment.tail) * SAMPLE_RATE)
    return np.concatenate([samples, np.zeros(tail, np.float32)])


def mask(features: Tensor, augment: Augmentation, rng: np.random.Generator) -> Tensor:
    """SpecAugment's masks on the features (frames, 80) of one utterance, in place, filled with each bin's mean.

    lhotse's own draws from three generators of the process, so that a batch would depend on the one before.
    """
    mean, longest = features.mean(0), min(augment.time_width, len(features) // 10)
    plan = [(0, longest)] * augment.time_masks + [(1, augment.frequency_width)] * augment.frequency_masks
    for axis, widest in plan:
        width = int(rng.integers(widest + 1))
        start = int(rng.integers(features.shape[axis] - width + 1))
        features.narrow(axis, start, width).copy_(mean.narrow(0, start, width) if axis else mean)
    return features


def make_batch(features: list[Tensor], cuts: list[Cut], tokens: Tokens) -> Batch:
    """Pad the utterances of `cuts`, features (frames, 80) each, into a batch."""
    texts = [text_of(cut) for cut in cuts]
    ids = [torch.tensor(tokens.encode(text), dtype=torch.int64) for text in texts]
    return Batch(
        features=pad_sequence(features, batch_first=True),
        feature_lengths=torch.tensor([len(x) for x in features]),
        tokens=pad_sequence(ids, batch_first=True),
        token_lengths=torch.tensor([len(x) for x in ids]),
        texts=texts,
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
        mine = self.shard.of(list(enumerate(cuts)))
        features = [self._features(cut, [self.seed, index, place]) for place, cut in mine]
        return make_batch(features, [cut for _, cut in mine], self.tokens)

    def _features(self, cut: Cut, seed: list[int]) -> Tensor:
        if self.augment is None:
            return fast_fbank(samples_of(cut))
        rng = np.random.default_rng(seed)
        return mask(fast_fbank(perturb(samples_of(cut), self.augment, rng)), self.augment, rng)


def _epochs(cuts: CutSet, seconds_per_batch: float, seed: int) -> Iterator[CutSet]:
    bins = np.quantile([cut.duration for cut in cuts], np.arange(1, BUCKETS) / BUCKETS).tolist()
    with warnings.catch_warnings():  # lhotse would rather read manifests from disk again in every epoch
        warnings.simplefilter("ignore")
        sampler = DynamicBucketingSampler(
            cuts, max_duration=seconds_per_batch, shuffle=True, seed=seed, duration_bins=bins
        )
    for epoch in count():
        sampler.set_epoch(epoch)
        yield from sampler


def train_batches(
    cuts: CutSet, tokens: Tokens, *, seconds_per_batch: float, seed: int, start: int = 0,
    augment: Augmentation | None = None, workers: int = 1, warm_updates: int = 0, warm_seconds: float = 2.0,
    shard: Shard = WHOLE,
) -> Iterator[Batch]:  # fmt: skip
    """Endless shuffled batches. Batch i depends on the arguments and i alone, not on `start` or `workers`.

    Args:
        cuts: Training utterances of any sampling rate.
        tokens: Symbols of the transcripts.
        seconds_per_batch: Audio in one batch, padding included.
        seed: Of order and augmentation.
        start: Index of the first batch; those before it are not read.
        augment: How utterances are varied; None leaves them as they are.
        workers: Processes that prepare batches ahead; 0 prepares them in this one.
        warm_updates: Number of first batches made of short utterances only: a transducer leaves its plateau
            of blanks sooner on them.
        warm_seconds: Longest utterance of those batches.
        shard: The part of each batch that is made, where several processes train.

    Raises:
        TodmError: there is no utterance, or none as short as `warm_seconds`.
    """
    cuts = cuts.to_eager()
    if not len(cuts):
        raise TodmError("the training split holds no utterances; add some to the corpus")
    order = _epochs(cuts, seconds_per_batch, seed)
    if warm_updates:
        short = CutSet.from_cuts(cut for cut in cuts if cut.duration <= warm_seconds)
        if not len(short):
            shortest = min(cut.duration for cut in cuts)
            raise TodmError(f"warm_seconds {warm_seconds} is below the shortest utterance, {shortest:.2f} s")
        order = chain(islice(_epochs(short, seconds_per_batch, seed), warm_updates), order)
    batches: DataLoader[Batch] = DataLoader(
        _Loader(tokens, augment, seed, shard),  # type: ignore[arg-type]
        batch_size=None,
        sampler=islice(enumerate(order), start, None),
        num_workers=workers,
        generator=torch.Generator(),  # of its own, or it would draw from the one that training uses
        prefetch_factor=4 if workers else None,
    )
    return iter(batches)


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


def make_cut(recording: Recording, text: str, speaker: str | None = None) -> MonoCut:
    """The cut that is one whole recording, in which `text` is said."""
    cut = recording.to_cut()
    said = SupervisionSegment(cut.id, recording.id, 0.0, cut.duration, cut.channel, text, speaker=speaker)
    cut.supervisions = [said]
    return cut


def corpus_from_folder(folder: Path | str, table: Path | str) -> CutSet:
    """Utterances of a user's own: a folder of audio files and a table of what is said in them.

    Args:
        folder: Audio files of any format, rate and number of channels.
        table: UTF-8 text, a line for every utterance: file name inside `folder`, tab, words.

    Raises:
        TodmError: the table cannot be read or is empty, a line has no words, or its file is not audio.
    """
    try:
        lines = Path(table).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TodmError(f"cannot read the table {table} as UTF-8 text: {error}") from error
    cuts = []
    for number, line in enumerate(lines, start=1):
        name, _, text = line.partition("\t")
        if not text.strip():
            raise TodmError(f"{table}, line {number}: write a file name, a tab and the words")
        try:
            recording = Recording.from_file(Path(folder) / name, recording_id=name)
        except Exception as error:  # lhotse tries several readers and raises whatever the last one did
            raise TodmError(f"{table}, line {number}: {Path(folder) / name} is not readable audio") from error
        cuts.append(make_cut(recording, " ".join(text.split())))
    if not cuts:
        raise TodmError(f"the table {table} is empty; write a file name, a tab and the words on every line")
    return CutSet.from_cuts(cuts)
