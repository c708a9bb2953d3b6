"""Train once, deploy many: one weight-sharing supernet, the best subnet for every device."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from todm.space import Choice as Choice
    from todm.space import SearchSpace as SearchSpace
    from todm.space import activate as activate
    from todm.subnet import extract as extract

__version__ = "0.1.0"

# Resolved on first use, so that `import todm` and `todm --help` do not wait for torch.
_HOME = {
    "Arch": "todm.space",
    "Choice": "todm.space",
    "SearchSpace": "todm.space",
    "activate": "todm.space",
    "extract": "todm.subnet",
}
__all__ = ["Choice", "SearchSpace", "activate", "extract"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'todm' has no attribute {name!r}")
