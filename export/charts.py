"""Geometry of charts: axes with round ticks, the points that nothing cheaper beats, thinned curves."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """Round ticks, of which the first and the last enclose the values."""

    ticks: list[float]
    log: bool
    down: bool
    """Whether places are counted from the largest value, as in a drawing from top to bottom."""

    def at(self, value: float) -> float:
        """Place of a value in percent of the axis."""
        start, end, here = (math.log(v) if self.log else v for v in (self.ticks[0], self.ticks[-1], value))
        return 100 * ((end - here) if self.down else (here - start)) / (end - start)


def axis(values: Iterable[float], log: bool, down: bool = False) -> Axis:
    """An axis for these values: a linear one holds zero, a logarithmic one wants positive values."""
    low, high = min(values := list(values)), max(values)
    if log:
        steps = (1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
        decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        grid = [step * 10.0**decade for decade in decades for step in steps]
        first, last = max(t for t in grid if t < low), min(t for t in grid if t > high)
        return Axis([tick for tick in grid if first <= tick <= last], log, down)
    low, high = min(low, 0.0), max(high, 0.0)
    rough = (high - low or 1.0) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    last_step = max(math.ceil(high / step), math.floor(low / step) + 1)
    return Axis([step * n for n in range(math.floor(low / step), last_step + 1)], log, down)


def unbeaten(points: Iterable[Point]) -> list[Point]:
    """The points of (cost, error), by cost, of which none cheaper has as small an error."""
    front: list[Point] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def thin(points: Sequence[Point], most: int = 80) -> list[Point]:
    """At most `most` points of a curve, each the mean of its neighbours."""
    step = math.ceil(len(points) / most)
    parts = [points[i : i + step] for i in range(0, len(points), step)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
