"""The ablation as a table: both ends of the family, their differences from the first row, what an update costs."""

import csv
from pathlib import Path

from todm.compare import summarise
from todm.files import read_json

ENDS = ("largest", "smallest")


def as_markdown(folder: Path) -> str:
    """Table of a comparison's results.csv and, where it has been measured, cost.json (`python -m bench.rows`)."""
    with open(folder / "results.csv", encoding="utf-8", newline="") as file:
        results = [
            line | {"seed": int(line["seed"]), "wer": float(line["wer"]), "seconds": float(line["seconds"])}
            for line in csv.DictReader(file)
        ]
    baseline = results[0]["row"]
    found = {(line["row"], line["net"]): line for line in summarise(results, baseline)}
    told = folder / "cost.json"
    costs = read_json(told)["milliseconds"] if told.exists() else {}
    head = ["row", "seeds", *(cell for net in ENDS for cell in (net, "difference")), "cost"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in dict.fromkeys(line["row"] for line in results):
        cells = [row, str(found[row, ENDS[0]]["seeds"])]
        for net in ENDS:
            line = found[row, net]
            cells.append(_spread(line["wer"], line["wer_sd"]))
            cells.append("" if row == baseline else _spread(line["wer_difference"], line["wer_interval"], "+"))
        cells.append(f"{costs[row] / costs[baseline]:.2f}" if costs else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _spread(value: float, spread: float | None, sign: str = "") -> str:
    return f"{value:{sign}.1f}" + (f" ± {spread:.1f}" if spread is not None else "")
