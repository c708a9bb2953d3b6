"""What a device can spare: `size<=1MB, rtf<=0.05, latency_p90<=20ms`. Imports no torch."""

import difflib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from todm.errors import TodmError

_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_COUNT = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_TIME = {"ms": Decimal(1), "us": Decimal("0.001"), "s": Decimal(1000)}

METRICS: dict[str, Mapping[str, int | Decimal]] = {
    "size_bytes": _BYTES,
    **dict.fromkeys(("params", "macs"), _COUNT),
    "rtf": {"": 1},
    **dict.fromkeys(("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "load_ms"), _TIME),
    **dict.fromkeys(("peak_rss_bytes", "peak_memory_bytes"), _BYTES),
}
"""Cost -> units a limit may be written in. The first unit is the cost's own and may be left out."""
_ERROR = {"": 1, "%": 1}
"""The same of the error, whose name is the task's."""

_EXACT = ("size_bytes", "params", "macs")
_ENTRY = re.compile(r"([A-Za-z]\w*)\s*([<>=]*)\s*(.*)", re.DOTALL)
_VALUE = re.compile(r"([+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf))\s*([a-z%]*)", re.I)


def _short(name: str) -> str:
    return name.removesuffix("_bytes").removesuffix("_ms")


def _listed(names: Collection[str]) -> str:
    costs = [_short(name) for name in METRICS if name in names]
    return ", ".join(costs + sorted(set(names) - set(METRICS))) or "nothing"


def format_value(name: str, value: float, unit: str | None = None, round_up: bool = False) -> str:
    """Write a metric's value, e.g. `("size_bytes", 212000)` -> `212KB`.

    Args:
        unit: One of the metric's units; by default the largest decimal one that leaves a number >= 1.
        round_up: To a number fit to be a limit; otherwise exact.
    """
    units = METRICS.get(name, _ERROR)
    if unit is None:
        decimal = sorted((u for u in units if "i" not in u), key=lambda u: units[u], reverse=True)
        unit = next((u for u in decimal if value >= units[u]), decimal[-1])
    number = Decimal(repr(float(value))) / units[unit]
    if round_up:
        # Repeated measurements of times and memory scatter by percents: fewer digits leave them room.
        last = min(number.adjusted() - 2, 0) if name in _EXACT else number.adjusted() - 1
        number = number.quantize(Decimal(1).scaleb(last), ROUND_CEILING)
    number = number.normalize()
    return f"{number:f}{unit}" if abs(number.adjusted()) < 18 else f"{number}{unit}"


@dataclass(frozen=True)
class Budget:
    """Upper limits on metrics, each in the unit of its canonical name (bytes, ms, count, percent)."""

    limits: dict[str, float]
    units: dict[str, str] = field(default_factory=dict)
    """The unit each limit was written in, so that answers use the same."""

    @classmethod
    def parse(cls, text: str, error: str = "wer") -> "Budget":
        """Read entries `NAME<=NUMBER UNIT` separated by commas; `<` means `<=`, an empty text no limit.

        Args:
            error: Name of what the task's search minimises; it can be limited like a cost.

        Raises:
            TodmError: an unknown or repeated name, no `<=`, a bad unit, or a number that is not positive.
        """
        budget = cls({})
        for entry in text.split(",") if text.strip() else []:
            name, unit, limit = _parse_entry(entry.strip(), error)
            if name in budget.limits:
                raise TodmError(f"budget names {_short(name)} twice; keep one limit on it")
            budget.limits[name], budget.units[name] = limit, unit
        return budget

    def __str__(self) -> str:
        return ", ".join(map(self.written, self.limits))

    def written(self, name: str) -> str:
        """One limit as a user writes it."""
        return f"{_short(name)}<={format_value(name, self.limits[name], self.units.get(name))}"

    def without(self, name: str) -> "Budget":
        """The limits on everything else."""
        return Budget({other: limit for other, limit in self.limits.items() if other != name}, self.units)

    def violations(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Relative excess over each limit that `metrics` breaks; empty if they keep the budget.

        Raises:
            TodmError: a metric with a limit was not measured.
        """
        measured = {name for name, value in metrics.items() if value is not None and math.isfinite(value)}
        if missing := self.limits.keys() - measured:
            raise TodmError(f"budget names {_listed(missing)}, but measured were only {_listed(measured)}")
        return {name: metrics[name] / top - 1 for name, top in self.limits.items() if metrics[name] > top}


def _parse_entry(entry: str, error: str) -> tuple[str, str, float]:
    match = _ENTRY.fullmatch(entry)
    if not match:
        raise TodmError(f'budget entry {entry!r} is not NAME<=NUMBER; type e.g. --budget "size<=1MB"')
    written, operator, right = match.groups()
    names = {_short(name): name for name in METRICS} | {name: name for name in (*METRICS, error)}
    if written not in names:
        hint = "".join(f"did you mean {name}? " for name in difflib.get_close_matches(written, names, 1))
        raise TodmError(f"budget names unknown {written!r}; {hint}known: {_listed(names.values())}")
    name = names[written]
    if operator not in ("<=", "<"):
        raise TodmError(f"budget entry {entry!r} needs '<=' after the name; type {_short(name)}<=NUMBER")
    value = _VALUE.fullmatch(right)
    if not value:
        raise TodmError(f"budget entry {entry!r}: {right!r} is not a number with a unit")
    units = METRICS.get(name, _ERROR)
    by_lower_case = {unit.lower(): unit for unit in units}
    unit = by_lower_case.get(value[2].lower()) if value[2] else next(iter(units))
    if unit is None:
        known = ", ".join(filter(None, units)) or "none"
        raise TodmError(f"budget entry {entry!r}: bad unit {value[2]!r}; units of {_short(name)}: {known}")
    limit = float(value[1])
    if math.isfinite(limit) and limit > 0:
        limit = float(Decimal(value[1]) * units[unit])
    if not math.isfinite(limit) or limit <= 0:
        raise TodmError(f"budget entry {entry!r}: the limit must be a positive, finite number")
    return name, unit, limit


def check_feasible(budget: Budget, floor: Mapping[str, float]) -> None:
    """Refuse a budget that no subnet can meet, before any search.

    Args:
        floor: Measured metrics of the smallest subnet (an error rate: that of the best one).

    Raises:
        TodmError: names the nearest feasible budget, or what was measured if a limit's metric was not.
    """
    short = budget.violations(floor)
    if not short:
        return
    needs = {name: format_value(name, floor[name], budget.units.get(name), round_up=True) for name in short}
    wanted = ", ".join(map(budget.written, short))
    needed = ", ".join(f"{_short(n)} {value}" if len(needs) > 1 else value for n, value in needs.items())
    near = [f"{_short(n)}<={needs[n]}" if n in needs else budget.written(n) for n in budget.limits]
    hint = f'type --budget "{", ".join(near)}"'
    raise TodmError(f"budget {wanted} cannot be met: the smallest subnet needs {needed}; {hint}")
