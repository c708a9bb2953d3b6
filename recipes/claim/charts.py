"""Pictures of the claim: error against size for both families, and what each side cost."""

from io import StringIO
from typing import Any

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


def _svg(figure: Figure) -> str:
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
