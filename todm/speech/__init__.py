"""The speech task: recordings in, a streaming transducer out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from todm.speech.features import fbank as fbank
    from todm.speech.joint_loss import joint_rnnt_loss as joint_rnnt_loss
    from todm.speech.lattice import rnnt_loss as rnnt_loss
    from todm.speech.pruned_loss import pruned_rnnt_loss as pruned_rnnt_loss

__all__ = ["fbank", "joint_rnnt_loss", "pruned_rnnt_loss", "rnnt_loss"]
# Resolved on first use: a user of the loss need not have the audio packages. No submodule may have such a name.
_HOME = {
    "fbank": "todm.speech.features",
    "joint_rnnt_loss": "todm.speech.joint_loss",
    "pruned_rnnt_loss": "todm.speech.pruned_loss",
    "rnnt_loss": "todm.speech.lattice",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'todm.speech' has no attribute {name!r}")
