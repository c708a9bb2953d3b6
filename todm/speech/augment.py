"""How training utterances are varied: speed, room, level, noise, silence, and masks on the features."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field

import numpy as np
import torch
from lhotse.augmentation import Speed
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass
from scipy.signal import fftconvolve
from torch import Tensor

from todm.recipe import STRICT, Fraction
from todm.speech.features import BINS, SAMPLE_RATE, Samples


@dataclass(frozen=True, config=STRICT)
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
    reverberation: Fraction = 0.0
    """Share of utterances that sound as in a room."""
    reverberation_seconds: tuple[float, float] = (0.1, 0.6)
    """Time in which the room's sound falls by 60 dB, from and to."""
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


def perturb(samples: Samples, augment: Augmentation, rng: np.random.Generator) -> Samples:
    """Vary speed, room, level, noise and final silence of samples (n,) at 16 kHz."""
    speed = augment.speeds[rng.integers(len(augment.speeds))]
    if speed != 1.0:
        with _without_onednn():
            samples = Speed(speed)(samples[None], SAMPLE_RATE)[0]
    if augment.reverberation and rng.random() < augment.reverberation:
        samples = reverberate(samples, rng.uniform(*augment.reverberation_seconds), rng)
    samples = samples * np.float32(10 ** (rng.uniform(-augment.gain, augment.gain) / 20))
    if rng.random() < augment.noise:
        level = np.sqrt(np.mean(np.square(samples))) * 10 ** (-rng.uniform(*augment.noise_snr) / 20)
        samples = samples + np.float32(level) * rng.standard_normal(len(samples), dtype=np.float32)
    tail = round(rng.uniform(0, augment.tail) * SAMPLE_RATE)
    return np.concatenate([samples, np.zeros(tail, np.float32)])


@contextmanager
def _without_onednn() -> Iterator[None]:
    """oneDNN compiles a convolution anew for every length of signal, which takes longer than the convolution."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def reverberate(samples: Samples, seconds: float, rng: np.random.Generator) -> Samples:
    """Samples (n,) as in a room whose sound falls by 60 dB in `seconds`, as loud and as long as they were.

    The impulse response is the direct sound and noise that decays exponentially from 5 ms on (Moorer 1979).
    """
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds) * (time > 0.005)
    response *= rng.uniform(0.2, 1.0) / max(float(np.linalg.norm(response)), 1e-9)
    response[0] = 1.0
    wet = fftconvolve(samples, response)[: len(samples)].astype(np.float32)
    return wet * np.float32(np.linalg.norm(samples) / max(float(np.linalg.norm(wet)), 1e-9))


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
