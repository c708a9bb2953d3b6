"""From a Program to files that run elsewhere, with the proof: export, compare, bundle, measure.

Knows programs and files, nothing of training. Names are resolved on first use, so that importing this waits
for no exporter and no runtime.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from todm.export.backend import Backend as Backend
    from todm.export.backend import find_backend as find_backend
    from todm.export.bench import measure as measure
    from todm.export.bundle import Bundle as Bundle
    from todm.export.bundle import load_bundle as load_bundle
    from todm.export.bundle import write_bundle as write_bundle
    from todm.export.calibrate import Call as Call
    from todm.export.calibrate import record as record
    from todm.export.device import Device as Device
    from todm.export.device import find_device as find_device
    from todm.export.parity import compare as compare

_HOME = {
    "Backend": "backend",
    "Bundle": "bundle",
    "Call": "calibrate",
    "Device": "device",
    "compare": "parity",
    "find_backend": "backend",
    "find_device": "device",
    "load_bundle": "bundle",
    "measure": "bench",
    "record": "calibrate",
    "write_bundle": "bundle",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'todm.export' has no attribute {name!r}")
    return getattr(import_module(f"todm.export.{_HOME[name]}"), name)
