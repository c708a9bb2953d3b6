"""Evaluated architectures and the Pareto front among them."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from todm.files import atomic_write
from todm.space import Arch


@dataclass(frozen=True)
class Candidate:
    """One architecture with its error rate and what it costs, by metric name."""

    arch: Arch
    error: float
    costs: dict[str, float]


def pareto_front(candidates: Sequence[Candidate], objectives: Sequence[str] = ("params",)) -> list[Candidate]:
    """Those whose error and costs named in `objectives` no other matches or beats, sorted by the first cost.

    Of several with equal values the first stays.
    """
    points: dict[tuple[float, ...], Candidate] = {}
    for candidate in candidates:
        points.setdefault((*(candidate.costs[name] for name in objectives), candidate.error), candidate)

    def beaten(point: tuple[float, ...]) -> bool:
        return any(q != point and all(a <= b for a, b in zip(q, point, strict=True)) for q in points)

    return [points[point] for point in sorted(points) if not beaten(point)]


def write_front(path: Path, candidates: Sequence[Candidate], error_name: str = "wer") -> Path:
    """Write `front.csv`: the error by the task's name for it, each cost by its own, and the architecture as JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(candidates[0].costs) if candidates else []
    writer.writerow([error_name, *names, "arch"])
    for candidate in candidates:
        writer.writerow([candidate.error, *(candidate.costs[name] for name in names), json.dumps(candidate.arch)])
    return atomic_write(path, text.getvalue())
