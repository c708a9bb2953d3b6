"""Error and non-zero weights over training as one picture, from the logs of `todm compare duality_lenet`.

python -m todm.recipes.duality_lenet.curves runs/compare-duality adaptive_tikhonov log_sum curves.svg
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from todm.errors import TodmError, script
from todm.export.charts import Axis, Point, axis
from todm.files import atomic_write

WIDTH, HEIGHT = 380, 300
"""Of a panel, in pixels."""
LEFT, TOP, BOTTOM, RIGHT = 60, 46, 48, 24
"""Margins of a panel."""
COLOURS = ("#0072b2", "#c95600", "#00805d", "#a34e88")
METRICS = {"nonzero": "non-zero weights (%)", "error": "dev error (%)"}


def read_curves(run: Path, row: str) -> list[dict[str, list[Point]]]:
    """For each seed of a row, every metric as (update, value) points.

    Raises:
        TodmError: the row has not been trained there.
    """
    curves = []
    for path in sorted((run / row).glob("seed*/log.jsonl")):
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        tests = [(entry["update"], entry["dev"]["alone"]) for entry in entries if "dev" in entry]
        curves.append({metric: [(update, values[metric]) for update, values in tests] for metric in METRICS})
    if not curves:
        raise TodmError(f"{run} holds no log of row {row!r}; train it with `todm compare duality_lenet --out {run}`")
    return curves


def draw(rows: Mapping[str, Sequence[dict[str, list[Point]]]]) -> str:
    """An SVG of one panel a metric: a thin line for each seed, a thick one for the mean of a row."""
    size = (len(METRICS) * WIDTH, HEIGHT)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" '
        f'height="{size[1]}" font-family="sans-serif" font-size="12" role="img" '
        f'aria-label="{" and ".join(METRICS.values())} over training: {", ".join(rows)}">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, (metric, title) in enumerate(METRICS.items()):
        parts += [f'<g transform="translate({number * WIDTH})">', *_panel(rows, metric, title), "</g>"]
    for number, row in enumerate(rows):
        place = LEFT + 150 * number
        parts.append(f'<path d="M{place} 16h22" stroke="{COLOURS[number]}" stroke-width="2.5"/>')
        parts.append(f'<text x="{place + 28}" y="20" fill="#1b1f24">{row.replace("_", " ")}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(rows: Mapping[str, Sequence[dict[str, list[Point]]]], metric: str, title: str) -> list[str]:
    points = [point for seeds in rows.values() for seed in seeds for point in seed[metric]]
    across = axis([x for x, _ in points], log=False)
    up = axis([max(y, 0.01) for _, y in points], log=True, down=True)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(point: Point) -> Point:
        return LEFT + across.at(point[0]) / 100 * wide, TOP + up.at(max(point[1], 0.01)) / 100 * high

    parts = [f'<text x="{LEFT}" y="{TOP - 10}" font-weight="600" fill="#1b1f24">{title}</text>']
    parts += [_tick(LEFT - 6, at((0, tick))[1] + 4, tick, "end") for tick in _round(up)]
    parts += [f'<path d="M{LEFT} {at((0, tick))[1]:.1f}h{wide}" stroke="#e2dfd8"/>' for tick in _round(up)]
    parts += [_tick(at((tick, up.ticks[0]))[0], HEIGHT - BOTTOM + 18, tick, "middle") for tick in across.ticks]
    parts.append(f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 10}" text-anchor="middle" fill="#5c6570">updates</text>')
    for colour, seeds in zip(COLOURS, rows.values(), strict=False):
        curves = [seed[metric] for seed in seeds]
        mean = [(column[0][0], sum(y for _, y in column) / len(column)) for column in zip(*curves, strict=True)]
        for curve, style in [
            *((curve, 'stroke-width="1" opacity=".35"') for curve in curves),
            (mean, 'stroke-width="2.5"'),
        ]:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, curve))
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" {style}/>')
    return parts


def _round(up: Axis) -> list[float]:
    """Ticks that have room."""
    return up.ticks if len(up.ticks) <= 8 else [tick for tick in up.ticks if f"{tick:.0e}"[0] in "1"]


def _tick(x: float, y: float, value: float, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#5c6570">{value:g}</text>'


@script
def main(arguments: Sequence[str]) -> None:
    """RUN ROW [ROW ...] FILE.svg"""
    if len(arguments) < 3 or len(arguments) > 2 + len(COLOURS):
        raise TodmError(
            f"type: python -m todm.recipes.duality_lenet.curves RUN ROW [ROW ...] FILE.svg, rows up to {len(COLOURS)}"
        )
    run, *rows, file = arguments
    atomic_write(Path(file), draw({row: read_curves(Path(run), row) for row in rows}))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
