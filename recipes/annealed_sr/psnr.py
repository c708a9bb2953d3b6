"""Peak signal-to-noise ratio, and the error in grey levels that stands for it."""

import math

import numpy as np

PEAK = 255.0


def psnr(expected: np.ndarray, got: np.ndarray, border: int = 0) -> float:
    """10 log10(255^2 / mean squared error) in dB of two pictures (height, width, ...), without their border pixels.

    Equal pictures give infinity.

    Raises:
        ValueError: the shapes differ, or nothing is left inside the border.
    """
    if expected.shape != got.shape:
        raise ValueError(f"pictures differ in shape: {expected.shape} and {got.shape}")
    inside = (slice(border, expected.shape[0] - border), slice(border, expected.shape[1] - border))
    difference = expected[inside].astype(np.float64) - got[inside]
    if difference.size == 0:
        raise ValueError(f"a border of {border} leaves nothing of a picture of shape {expected.shape}")
    error = float(np.mean(np.square(difference)))
    return 10 * math.log10(PEAK**2 / error) if error else math.inf


def grey_levels(decibels: float) -> float:
    """The root mean squared error in grey levels of 255 that has this PSNR: what search can minimise."""
    return PEAK * 10 ** (-decibels / 20)
