"""Optimiser and learning-rate schedule of the Zipformer recipes, which the transducers here train with."""

from todm.optim.eden import Eden
from todm.optim.scaled_adam import ScaledAdam

__all__ = ["Eden", "ScaledAdam"]
