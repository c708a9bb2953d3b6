"""Rates that change while training: each schedule is a formula from update to rate, in one small class.

`schedule.rate(step)` is the drop probability (or whatever value it schedules) during update `step`, counted from 0.
A `total` or `period` left out is filled in with the length of training, and `layer` with the place of the layer,
by `todm.dropout.Rates` and `todm.dropout.install`.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from todm.errors import TodmError


class Schedule(ABC):
    """A value as a function of the update."""

    @abstractmethod
    def rate(self, step: int) -> float:
        """The value during update `step`, counted from 0."""

    def filled(self, **facts: int) -> "Schedule":
        """A copy with what was left out, e.g. `total`, filled in; what was given stays."""
        names = {field.name for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        missing = {key: value for key, value in facts.items() if key in names and getattr(self, key) is None}
        return dataclasses.replace(self, **missing) if missing else self  # type: ignore[type-var]


def _known(value: float | None, name: str) -> float:
    if value is None:
        raise TodmError(f"a schedule needs {name}: give it, or train with todm.dropout.Rates(model, total=updates)")
    return value


def _progress(step: int, total: int | None) -> float:
    """0 at the start and 1 from update `total` on; the start is known without a total."""
    return min(step / _known(total, "total"), 1.0) if step else 0.0


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate always."""

    value: float

    def rate(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """Straight from `start` to `end` in `total` updates (Yan & Shao 2024, arXiv 2411.03236, linear decay)."""

    start: float
    end: float = 0.0
    total: int | None = None

    def rate(self, step: int) -> float:
        return self.start + (self.end - self.start) * _progress(step, self.total)


@dataclass(frozen=True)
class Exponential(Schedule):
    """start (end / start)^(t / total) (Yan & Shao 2024, arXiv 2411.03236, exponential decay); both ends positive."""

    start: float
    end: float
    total: int | None = None

    def __post_init__(self) -> None:
        if not (self.start > 0 and self.end > 0):
            raise ValueError(f"an exponential schedule needs positive ends, got {self.start} and {self.end}")

    def rate(self, step: int) -> float:
        progress = _progress(step, self.total)
        return float(self.start ** (1 - progress) * self.end**progress)


@dataclass(frozen=True)
class Cosine(Schedule):
    """end + (start - end) (1 + cos(pi t / total)) / 2 (Yan & Shao 2024, arXiv 2411.03236, cosine)."""

    start: float
    end: float = 0.0
    total: int | None = None

    def rate(self, step: int) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * _progress(step, self.total))) / 2


@dataclass(frozen=True)
class Curriculum(Schedule):
    """Curriculum dropout: keep(t) = (1 - keep) exp(-gamma t) + keep, from no dropout to 1 - keep (Morerio et al. 2017,
    arXiv 1703.06229, equation 4).

    `gamma` left out is 10 / total, as the paper advises: the curve ends within 5e-5 of its limit.
    """

    keep: float = 0.5
    gamma: float | None = None
    total: int | None = None

    def _decayed(self, step: int) -> float:
        if self.gamma is not None:
            return math.exp(-self.gamma * step)
        return math.exp(-10 * step / _known(self.total, "gamma or total")) if step else 1.0

    def rate(self, step: int) -> float:
        return (1 - self.keep) * (1 - self._decayed(step))


@dataclass(frozen=True)
class AntiCurriculum(Curriculum):
    """The control that goes the other way: keep(t) = 1 - (1 - keep) exp(-gamma t) (Morerio et al. 2017, section 4)."""

    def rate(self, step: int) -> float:
        return (1 - self.keep) * self._decayed(step)


@dataclass(frozen=True)
class Switch(Schedule):
    """The other control: no dropout before update `step`, 1 - keep from it on (Morerio et al. 2017, section 4)."""

    keep: float = 0.5
    step: int | None = None
    total: int | None = None
    """`step` left out is half of it."""

    def rate(self, step: int) -> float:
        if not step:
            return 0.0 if self.step != 0 else 1 - self.keep
        at = self.step if self.step is not None else _known(self.total, "step or total") / 2
        return 1 - self.keep if step >= at else 0.0


@dataclass(frozen=True)
class Piecewise(Schedule):
    """Straight lines through `points`, (update, rate) in rising order; constant before the first and after the last."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        points = tuple((float(step), float(rate)) for step, rate in self.points)
        steps = [step for step, _ in points]
        if not points or steps != sorted(set(steps)):
            raise ValueError(f"a piecewise schedule needs (update, rate) pairs in rising order, got {self.points}")
        object.__setattr__(self, "points", points)

    def rate(self, step: int) -> float:
        before = [point for point in self.points if point[0] <= step]
        after = [point for point in self.points if point[0] > step]
        if not before or not after:
            return (after[0] if after else before[-1])[1]
        (t0, r0), (t1, r1) = before[-1], after[0]
        return r0 + (r1 - r0) * (step - t0) / (t1 - t0)


@dataclass(frozen=True)
class Early(Schedule):
    """Dropout against underfitting: from `start` straight to 0 at update `until`, none after it (Liu et al. 2023,
    arXiv 2303.01500, early dropout with the linear schedule it recommends)."""

    start: float
    until: int | None = None
    total: int | None = None
    """`until` left out is a sixth of it: the paper's 50 of 300 epochs."""

    def rate(self, step: int) -> float:
        if not step:
            return self.start if self.until != 0 else 0.0
        until = self.until if self.until is not None else _known(self.total, "until or total") / 6
        return self.start * max(1 - step / until, 0.0) if until else 0.0


@dataclass(frozen=True)
class Late(Schedule):
    """Dropout against overfitting: none before update `start`, then `value` (Liu et al. 2023, arXiv 2303.01500)."""

    value: float
    start: int | None = None
    total: int | None = None
    """`start` left out is a sixth of it."""

    def rate(self, step: int) -> float:
        if not step:
            return self.value if self.start == 0 else 0.0
        start = self.start if self.start is not None else _known(self.total, "start or total") / 6
        return self.value if step >= start else 0.0


@dataclass(frozen=True)
class FrontToBack(Schedule):
    """The annealed mixture's weight p: `start`, and `end` from update period (layer + 1) on, so that the shallowest
    layer is annealed first (Xu et al. 2024, Adaptive Dropout for blind super-resolution).

    `layer` left out is the layer's place among those of its site, `period` is total / (layers + 1).
    """

    start: float = 0.3
    end: float = 1.0
    period: float | None = None
    layer: int | None = None
    layers: int | None = None
    total: int | None = None

    def rate(self, step: int) -> float:
        if not step:
            return self.start
        period = self.period
        if period is None:
            period = _known(self.total, "period or total") / (_known(self.layers, "layers") + 1)
        return self.end if step >= period * (_known(self.layer, "layer") + 1) else self.start


@dataclass
class OnValidation(Schedule):
    """A rate that follows the validation loss: times `factor` when it improves on its best, divided by it when not,
    within `low` and `high` (Yan & Shao 2024, arXiv 2411.03236, validation-loss-based adjustment).

    A loss that no longer falls is a sign of overfitting, which more dropout answers.
    """

    start: float = 0.2
    factor: float = 0.9
    low: float = 0.0
    high: float = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.factor <= 1 and self.low <= self.start <= self.high):
            raise ValueError(f"a rate on validation needs 0 < factor <= 1 and low <= start <= high, got {self}")
        self._now, self._best = self.start, math.inf

    def rate(self, step: int) -> float:
        return self._now

    def update(self, value: float) -> None:
        """Take a new validation loss into account; one that is not a number counts as no improvement."""
        improved = value < self._best
        self._best = value if improved else self._best
        changed = self._now * self.factor if improved else self._now / self.factor
        self._now = min(max(changed, self.low), self.high)

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs."""
        return {"now": self._now, "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._now, self._best = float(state["now"]), float(state["best"])


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "linear": Linear,
    "exponential": Exponential,
    "cosine": Cosine,
    "curriculum": Curriculum,
    "anti_curriculum": AntiCurriculum,
    "switch": Switch,
    "piecewise": Piecewise,
    "early": Early,
    "late": Late,
    "front_to_back": FrontToBack,
    "on_validation": OnValidation,
}
"""By the name a recipe uses."""


def as_schedule(value: float | Schedule | Mapping[str, Any]) -> Schedule:
    """A schedule from what a user gives: a number, a schedule, or a recipe's `{schedule: NAME, argument: value, ...}`.

    Raises:
        TodmError: none of these, or an unknown schedule or argument.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Constant(float(value))
    if not isinstance(value, Mapping) or value.get("schedule") not in SCHEDULES:
        raise TodmError(
            f"a rate is a number or {{schedule: NAME, ...}} with one of {', '.join(SCHEDULES)}; got {value!r}"
        )
    kind = SCHEDULES[value["schedule"]]
    arguments = {key: item for key, item in value.items() if key != "schedule"}
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in arguments:
        if name not in known:
            raise TodmError(f"schedule {value['schedule']} has no argument {name!r}; it has {', '.join(known)}")
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise TodmError(f"schedule {value['schedule']}: {error}; it has {', '.join(known)}") from None
