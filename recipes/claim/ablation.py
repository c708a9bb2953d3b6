"""The ablation as a table: both ends of the family, their differences from the first row, what an update costs."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from todm.compare import summarise
from todm.files import read_json

ENDS = ("largest", "smallest")


def as_markdown(folder: Path) -> str:
    """Table of a comparison's results.csv and, where it has been measured, cost.json (`python -m bench.rows`)."""
    with open(folder / "results.csv", encoding="utf-8", newline="") as file:
        results = [result(line["row"], line["net"], line["seed"], line["wer"]) for line in csv.DictReader(file)]
    told = folder / "cost.json"
    return as_table(results, ENDS, read_json(told)["milliseconds"] if told.exists() else {})


def result(row: str, net: str, seed: str, wer: str) -> dict[str, Any]:
    """What `as_table` takes of one net, from the text of a file."""
    return {"row": row, "net": net, "seed": int(seed), "wer": float(wer)}


def as_table(results: Sequence[dict[str, Any]], nets: Sequence[str], costs: dict[str, float] | None = None) -> str:
    """One line a row: of each net the error, mean ± standard deviation, and the difference from the first row.

    Args:
        results: By row, net and seed, as `result` makes them.
        nets: Columns, by the results' `net`.
        costs: Of rows; each is divided by the first row's. None: no such column.
    """
    baseline = results[0]["row"]
    timeless = [
        line | {"seconds": 0.0} for line in results
    ]  # what a training took by the wall's clock tells nothing here
    found = {(line["row"], line["net"]): line for line in summarise(timeless, baseline)}
    head = ["row", "seeds", *(cell for net in nets for cell in (net, "difference")), *(["cost"] if costs else [])]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in dict.fromkeys(line["row"] for line in results):
        cells = [row, str(found[row, nets[0]]["seeds"])]
        for net in nets:
            line = found[row, net]
            cells.append(_spread(line["wer"], line["wer_sd"]))
            cells.append("" if row == baseline else _spread(line["wer_difference"], line["wer_interval"], "+"))
        if costs:
            cells.append(f"{costs[row] / costs[baseline]:.2f}" if row in costs else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _spread(value: float, spread: float | None, sign: str = "") -> str:
    return f"{value:{sign}.1f}" + (f" ± {spread:.1f}" if spread is not None else "")
