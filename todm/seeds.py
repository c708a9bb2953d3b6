"""Several runs of one recipe that differ in the seed: what varies and how much."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any


def summarise(runs: Sequence[Path], metric: str) -> list[dict[str, Any]]:
    """Mean and standard deviation of a metric over runs, for each size (smallest first), runtime and precision."""
    cells: dict[tuple[int, str, str], list[dict[str, str]]] = defaultdict(list)
    for run in runs:
        with open(run / "bench.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        sizes = sorted({int(row["params"]) for row in rows})
        for row in rows:
            cells[sizes.index(int(row["params"])), row["runtime"], row["precision"]].append(row)
    table = []
    for (size, runtime, precision), rows in sorted(cells.items()):
        values = [float(row[metric]) for row in rows]
        table.append({
            "size": size, "runtime": runtime, "precision": precision,
            "params": round(mean(float(row["params"]) for row in rows)), f"{metric}_mean": mean(values),
            f"{metric}_sd": stdev(values) if len(values) > 1 else 0.0, f"{metric}_worst": max(values),
            "seeds": len(values),
        })  # fmt: skip
    return table


def as_text(table: Sequence[dict[str, Any]], metric: str) -> str:
    """The table for a terminal."""
    lines = [f"{'size':>4} {'parameters':>10}  {'runtime':10} {'precision':9} {metric} mean ± sd (worst)"]
    for row in table:
        spread = f"{row[f'{metric}_mean']:.2f} ± {row[f'{metric}_sd']:.2f} ({row[f'{metric}_worst']:.2f})"
        lines.append(f"{row['size']:>4} {row['params']:>10,}  {row['runtime']:10} {row['precision']:9} {spread}")
    return "\n".join(lines)
