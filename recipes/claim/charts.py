"""Pictures of the claim: error against size, what each side cost, the front, the ablation."""

import csv
from io import StringIO
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

ALONE, SUBNET = "#c95600", "#0072b2"


def errors(claim: dict[str, Any]) -> str:
    """Word error rate against parameters, with 95 % intervals, as SVG."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for key, label, colour, shift in (("alone", "trained alone", ALONE, 0.985), ("subnet", "subnet", SUBNET, 1.015)):
        rows = claim["rows"]
        values = [row[key].value for row in rows]
        spread = [[row[key].value - row[key].low for row in rows], [row[key].high - row[key].value for row in rows]]
        places = [row["params"] * shift for row in rows]
        axes.errorbar(places, values, spread, label=label, color=colour, marker="o", capsize=3)
    axes.set(xscale="log", xlabel="parameters", ylabel="word error rate, %", ylim=(0, None))
    axes.set_xticks([row["params"] for row in claim["rows"]], [f"{row['params'] / 1e3:.0f} k" for row in claim["rows"]])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return _svg(figure)


def costs(claim: dict[str, Any]) -> str:
    """Seconds in the training loop: each net alone, all of them, and the supernet, as SVG."""
    alone = {row["size"]: row["seconds"] for row in claim["rows"]}
    bars = {**alone, "all of them": sum(alone.values()), "one supernet": claim["family"]["seconds"]}
    figure = Figure(figsize=(6.4, 3), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(list(bars), list(bars.values()), color=[*[ALONE] * (len(bars) - 1), SUBNET])
    axes.bar_label(drawn, fmt="%.0f s", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="seconds in the training loop, one core")
    axes.margins(x=0.12)
    return _svg(figure)


def front(path: Path) -> str:
    """Test error against parameters of all architectures in front.csv, those of the found front joined, as SVG."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    places = [[float(row[key]) for row in rows] for key in ("params", "wer_test")]
    axes.plot(*places, ".", color="#8b929a", label="measured")
    joined = [[float(row[key]) for row in rows if row["on_front"] == "True"] for key in ("params", "wer_test")]
    axes.plot(*joined, color=SUBNET, marker="o", label="found by search on the dev set")
    axes.set(xscale="log", xlabel="parameters", ylabel="word error rate on the test set, %")
    axes.legend(frameon=False)
    return _svg(figure)


def ablation(path: Path) -> str:
    """Differences from the first row of a comparison's results.csv, seed by seed, for each net, as SVG."""
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    names = list(dict.fromkeys(line["row"] for line in lines))
    wer = {(line["row"], line["net"], line["seed"]): float(line["wer"]) for line in lines}
    figure = Figure(figsize=(9, 0.8 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots()
    for net, colour, shift in (("largest", ALONE, -0.15), ("smallest", SUBNET, 0.15)):
        for place, name in enumerate(names[1:]):
            apart = [v - wer[names[0], net, key[2]] for key, v in wer.items() if key[:2] == (name, net)]
            axes.plot(apart, [place + shift] * len(apart), ".", color=colour, alpha=0.5)
            axes.plot([mean(apart)], [place + shift], "o", color=colour, label=None if place else f"{net} net")
    axes.axvline(0, color="#8b929a", linewidth=1)
    axes.set_yticks(range(len(names) - 1), names[1:])
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=10)  # a row that has learnt nothing is far away
    axes.set_xticks([-10, -5, 0, 5, 10, 100], ["-10", "-5", "0", "5", "10", "100"])
    axes.set(xlabel=f"word error rate above that of “{names[0]}”, points")
    axes.legend(frameon=False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    text = StringIO()
    with rc_context({"svg.hashsalt": "claim"}):  # or the same picture would be another file each time
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
