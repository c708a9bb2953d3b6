"""Search by budget. Names load on first use: reading a budget imports neither torch nor Optuna."""

from importlib import import_module
from typing import Any

# The functions `cost`, `evolve` and `spread` are imported from the modules whose names they bear.
_HOMES = {
    "budget": ("Budget", "check_feasible"),
    "cost": ("CostModel",),
    "front": ("Candidate", "pareto_front", "write_front"),
    "predictor": ("Predictor",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"todm.search.{module}"), name)
    raise AttributeError(f"module 'todm.search' has no attribute {name!r}")
