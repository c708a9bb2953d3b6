"""Dropout methods as training components."""

from todm.dropout.adaptive_width import AdaptiveDropout as AdaptiveDropout
