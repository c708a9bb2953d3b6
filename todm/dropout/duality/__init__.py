"""Adaptive dropout and penalties, two sides of one coin (LeJeune, Javadi & Baraniuk 2021, arXiv 2106.07769)."""

from todm.dropout.duality.numerical import HardConcrete as HardConcrete
from todm.dropout.duality.numerical import VarDrop as VarDrop
from todm.dropout.duality.numerical import VarDropApprox as VarDropApprox
from todm.dropout.duality.penalties import ARD as ARD
from todm.dropout.duality.penalties import MCP as MCP
from todm.dropout.duality.penalties import SCAD as SCAD
from todm.dropout.duality.penalties import HardThreshold as HardThreshold
from todm.dropout.duality.penalties import Log2Sum as Log2Sum
from todm.dropout.duality.penalties import LogSum as LogSum
from todm.dropout.duality.penalties import Lp as Lp
from todm.dropout.duality.penalties import Penalty as Penalty
from todm.dropout.duality.penalties import Standout as Standout

PENALTIES: dict[str, type[Penalty]] = {
    "lp": Lp,
    "log_sum": LogSum,
    "log2_sum": Log2Sum,
    "scad": SCAD,
    "mcp": MCP,
    "hard_threshold": HardThreshold,
    "ard": ARD,
    "standout": Standout,
    "var_drop": VarDrop,
    "var_drop_approx": VarDropApprox,
    "hard_concrete": HardConcrete,
}
"""By the name a recipe uses."""
