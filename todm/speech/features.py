"""Log-mel filter banks, exactly those of the on-device runtimes (Kaldi's, by kaldi-native-fbank)."""

from array import array
from math import gcd
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly
from torch import Tensor

from todm.errors import TodmError

SAMPLE_RATE = 16_000
"""Samples per second of everything the models hear."""
BINS = 80
"""Mel bins of a frame."""
TAIL = np.zeros(SAMPLE_RATE // 2, np.float32)
"""Silence that follows the last sample, for a causal model to finish the last word in."""
LEAST_RATE = 4_000
"""Samples per second of the coarsest recording that still holds speech."""
LOG_EPSILON = float(np.log(np.finfo(np.float32).eps))
"""Floor of the features: what digital silence sounds like."""

Samples = NDArray[np.float32]


def _options() -> knf.FbankOptions:
    """sherpa-onnx's: 25 ms Povey windows every 10 ms, pre-emphasis 0.97, DC removed, power, natural log."""
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = BINS
    options.mel_opts.low_freq = 20.0
    options.mel_opts.high_freq = -400.0  # below the Nyquist frequency: 7600 Hz
    return options


def checked(samples: Samples | Tensor, rate: int) -> Samples:
    """Samples that models can hear: (n,) float32.

    Raises:
        TodmError: they have another rate, more than one axis, or values that are no numbers.
    """
    if rate != SAMPLE_RATE:
        raise TodmError(f"samples come at {rate} a second, models hear {SAMPLE_RATE}; resample: features.mono_16k")
    if samples.ndim != 1:
        raise TodmError(f"models hear one channel of shape (samples,), not {tuple(samples.shape)}; mix it down")
    samples = np.asarray(samples, np.float32)
    if not np.isfinite(samples).all():
        raise TodmError("samples hold NaN or infinite values; leave them out, or record again")
    return samples


class StreamingFbank:
    """Features of a signal that arrives in pieces; together they equal `fbank` of the whole signal."""

    def __init__(self) -> None:
        self._bank = knf.OnlineFbank(_options())
        self._popped = 0

    def accept(self, samples: Samples | Tensor, rate: int = SAMPLE_RATE) -> None:
        """Append samples (n,), 16 kHz in [-1, 1], pieces of any length.

        Raises:
            TodmError: see `checked`.
        """
        # NumPy would box every element on its way into C++; this array is several times faster.
        self._bank.accept_waveform(SAMPLE_RATE, array("f", checked(samples, rate).tobytes()))

    def finish(self) -> None:
        """There is no more signal: the frames that reach over its end become ready."""
        self._bank.input_finished()

    @property
    def ready(self) -> int:
        """Number of frames that can be popped."""
        return self._bank.num_frames_ready - self._popped

    def pop(self, count: int) -> Samples:
        """Remove the oldest `count` <= `ready` frames: (count, 80)."""
        frames = np.empty((count, BINS), np.float32)
        for i in range(count):
            frames[i] = self._bank.get_frame(self._popped + i)
        self._bank.pop(count)
        self._popped += count
        return frames


def fbank(samples: Samples | Tensor, rate: int = SAMPLE_RATE) -> Tensor:
    """Log-mel features of samples (n,), 16 kHz in [-1, 1]: (frames, 80) float32, frames = (n + 80) // 160.

    Raises:
        TodmError: see `checked`.
    """
    bank = StreamingFbank()
    bank.accept(samples, rate)
    bank.finish()
    return torch.from_numpy(bank.pop(bank.ready))


def mono_16k(audio: NDArray[np.float32], rate: int) -> Samples:
    """Mix down and resample: (n, channels) at `rate` per second -> (m,) at 16 kHz."""
    samples = audio.mean(axis=1, dtype=np.float32)
    if rate != SAMPLE_RATE:
        common = gcd(rate, SAMPLE_RATE)
        samples = resample_poly(samples, SAMPLE_RATE // common, rate // common)
    return samples


def load_audio(path: Path | str) -> Samples:
    """Any file libsndfile reads, of any rate, channels and sample format: (n,) at 16 kHz in [-1, 1].

    Raises:
        TodmError: no such file, bytes that are not audio, no samples, NaN and infinite samples, or too few a second.
    """
    if not Path(path).is_file():
        raise TodmError(f"{path} is not a file; name an existing recording, e.g. recording.wav")
    try:
        audio, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a headerless format, by its extension
        raise TodmError(f"{path} is not readable audio; convert it to WAV, FLAC, Ogg or MP3") from error
    if not len(audio):
        raise TodmError(f"{path} holds no samples; record it again")
    if not np.isfinite(audio).all():
        raise TodmError(f"{path} holds NaN or infinite samples; export it again as 16-bit PCM")
    if rate < LEAST_RATE:
        raise TodmError(f"{path} holds {rate} samples a second, too few for speech; record it at {SAMPLE_RATE}")
    return mono_16k(audio, rate)
