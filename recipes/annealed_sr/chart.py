"""A picture of the table: how far every row is from no dropout, degradation by degradation.

    python -m todm.recipes.annealed_sr.chart COMPARISON

Reads COMPARISON/results.csv and writes COMPARISON/chart.svg: a dot is the mean over seeds of the difference from no
dropout with the same seed, its bar the range over seeds.
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from todm.errors import TodmError, script
from todm.files import atomic_write

KINDS = ("psnr", "psnr_blur", "psnr_noise", "psnr_jpeg", "psnr_blur_noise", "psnr_blur_jpeg", "psnr_noise_jpeg",
         "psnr_blur_noise_jpeg", "psnr_seen", "psnr_clean")  # fmt: skip
LABELS = {"psnr": "unseen, mean", "psnr_seen": "as in training", "psnr_clean": "halved only"}
BASELINE = "none"
COLOURS = ("#c95600", "#0072b2", "#00805d", "#a34e88", "#b8860b", "#8b929a")
LEFT, WIDTH, TOP, STEP, BETWEEN = 150, 560, 44, 56, 7
"""Of the drawing area, of a kind's band, and between the rows in it, in pixels."""

Differences = dict[str, dict[str, list[float]]]
"""Row -> kind -> dB above the baseline, for each seed."""


def differences(path: Path) -> Differences:
    """Paired differences from the baseline.

    Raises:
        TodmError: the file is missing or lacks the baseline.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    except OSError as error:
        raise TodmError(f"cannot read {path}: {error.strerror}; type: todm compare annealed_sr") from error
    reference = {line["seed"]: line for line in lines if line["row"] == BASELINE}
    result: Differences = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["row"] != BASELINE and line["seed"] in reference:
            for kind in KINDS:
                result[line["row"]][kind].append(float(line[kind]) - float(reference[line["seed"]][kind]))
    if not result:
        raise TodmError(f"{path} has nothing to compare with the row {BASELINE!r}")
    return {row: dict(kinds) for row, kinds in result.items()}


def draw(rows: Differences) -> str:
    """The chart as SVG."""
    values = [value for kinds in rows.values() for each in kinds.values() for value in each]
    step = 0.1 if max(values) - min(values) < 1 else 0.5
    low, high = (int(min(values) / step) - 1) * step, (int(max(values) / step) + 1) * step
    height = TOP + STEP * len(KINDS) + 30

    def at(value: float) -> float:
        return LEFT + WIDTH * (value - low) / (high - low)

    parts = []
    for number in range(round((high - low) / step) + 1):
        tick = low + number * step
        colour = "#8b929a" if abs(tick) < step / 2 else "#e2dfd8"
        parts.append(f'<path d="M{at(tick):.1f} {TOP}V{height - 30}" stroke="{colour}"/>')
        parts.append(f'<text x="{at(tick):.1f}" y="{height - 14}" text-anchor="middle">{tick:+.1f}</text>')
    parts.append(f'<text x="{LEFT + WIDTH}" y="{height - 1}" text-anchor="end">dB above no dropout</text>')
    for number, (row, colour) in enumerate(zip(rows, COLOURS, strict=False)):
        x = 20 + 120 * number
        parts.append(f'<circle cx="{x}" cy="20" r="4" fill="{colour}"/><text x="{x + 9}" y="24">{row}</text>')
    for band, kind in enumerate(KINDS):
        top = TOP + STEP * band
        label = LABELS.get(kind, kind.removeprefix("psnr_").replace("_", " + "))
        parts.append(f'<text x="{LEFT - 10}" y="{top + STEP / 2 + 4}" text-anchor="end">{label}</text>')
        for number, (row, colour) in enumerate(zip(rows, COLOURS, strict=False)):
            y, each = top + 10 + BETWEEN * number, rows[row][kind]
            ends = f"M{at(min(each)):.1f} {y}H{at(max(each)):.1f}"
            parts.append(f'<path d="{ends}" stroke="{colour}" stroke-width="2"/>')
            parts.append(f'<circle cx="{at(mean(each)):.1f}" cy="{y}" r="3.5" fill="{colour}"/>')
    wide, tall, body = LEFT + WIDTH + 30, height + 6, "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}" '
        'font-family="system-ui,sans-serif" font-size="12" fill="#5c6570" role="img" '
        'aria-label="PSNR of each row above no dropout">\n'
        f'<rect width="100%" height="100%" fill="#fdfcfa"/>\n{body}\n</svg>\n'
    )


@script
def main(arguments: Sequence[str]) -> None:
    """Draw the chart of the comparison named on the command line into its folder."""
    if len(arguments) != 1:
        raise TodmError("type: python -m todm.recipes.annealed_sr.chart COMPARISON")
    folder = Path(arguments[0])
    print(atomic_write(folder / "chart.svg", draw(differences(folder / "results.csv"))))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
