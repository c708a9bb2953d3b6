"""The speech task: recordings in, a streaming transducer out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from todm.speech.features import fbank as fbank
    from todm.speech.rnnt_loss import rnnt_loss as rnnt_loss

__all__ = ["fbank", "rnnt_loss"]
# Resolved on first use: a user of the loss need not have the audio packages.
_HOME = {"fbank": "todm.speech.features", "rnnt_loss": "todm.speech.rnnt_loss"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'todm.speech' has no attribute {name!r}")
