"""The features from their definition, in double precision: what the runtimes' are judged by."""

import numpy as np

from todm.speech.features import BINS, SAMPLE_RATE


def derived(samples: np.ndarray) -> np.ndarray:
    """Samples (n,) at 16 kHz -> (frames, 80), frame by frame."""
    n = len(samples)
    bins = 1127 * np.log1p(np.arange(257) * SAMPLE_RATE / 512 / 700)
    low, high = 1127 * np.log1p(np.array([20, 7600]) / 700)
    edges = np.linspace(low, high, BINS + 2)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    frames = []
    for i in range((n + 80) // 160):
        index = np.arange(400) + i * 160 + 80 - 200
        while ((index < 0) | (index >= n)).any():  # mirrored edges
            index = np.where(index < 0, -1 - index, index)
            index = np.where(index >= n, 2 * n - 1 - index, index)
        x = samples[index].astype(np.float64)
        x = x - x.mean()
        x = x - 0.97 * np.concatenate([x[:1], x[:-1]])
        power = np.abs(np.fft.rfft(x * window, 512)) ** 2
        row = []
        for left, centre, right in zip(edges, edges[1:], edges[2:], strict=False):
            up, down = (bins - left) / (centre - left), (right - bins) / (right - centre)
            row.append(power @ np.clip(np.minimum(up, down), 0, None))
        frames.append(np.log(np.maximum(row, np.finfo(np.float32).eps)))
    return np.array(frames)
