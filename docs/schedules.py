"""Draws docs/schedules.svg: every schedule of todm.dropout over 1,000 updates. `python docs/schedules.py` renews it."""

import copy
from pathlib import Path

from todm.dropout.schedule import (
    AntiCurriculum,
    Constant,
    Cosine,
    Curriculum,
    Early,
    Exponential,
    FrontToBack,
    Late,
    Linear,
    OnValidation,
    Piecewise,
    Schedule,
    Switch,
)

TOTAL, STEP = 1000, 10
COLUMNS, WIDTH, HEIGHT, MARGIN = 4, 190, 110, 24
PANELS: dict[str, tuple[str, float, list[Schedule]]] = {
    "constant": ("0.3", 0.5, [Constant(0.3)]),
    "linear": ("0.4 to 0.1", 0.5, [Linear(0.4, 0.1)]),
    "exponential": ("0.4 to 0.02", 0.5, [Exponential(0.4, 0.02)]),
    "cosine": ("0.4 to 0.1", 0.5, [Cosine(0.4, 0.1)]),
    "curriculum": ("keep 0.5, gamma 5e-3", 0.6, [Curriculum(0.5, 5e-3)]),
    "anti_curriculum": ("keep 0.5, gamma 5e-3", 0.6, [AntiCurriculum(0.5, 5e-3)]),
    "switch": ("keep 0.5 at half", 0.6, [Switch(0.5)]),
    "piecewise": ("(0, .3) (300, .1) (700, .2)", 0.5, [Piecewise(((0, 0.3), (300, 0.1), (700, 0.2)))]),
    "early": ("0.3, a sixth", 0.5, [Early(0.3)]),
    "late": ("0.3, from a sixth", 0.5, [Late(0.3)]),
    "front_to_back": ("weight of 4 layers", 1.2, [FrontToBack(0.3, layer=n, layers=4) for n in range(4)]),
    "on_validation": ("dev loss least at 600", 0.5, [OnValidation(0.2)]),
}
"""Name: what is drawn, top of the axis, curves."""


def curve(schedule: Schedule) -> list[float]:
    """Rates every STEP updates; the dev loss, heard every 50, falls up to update 600 and rises from there on."""
    schedule, rates = copy.deepcopy(schedule).filled(total=TOTAL), []
    for step in range(0, TOTAL + 1, STEP):
        rates.append(schedule.rate(step))
        if isinstance(schedule, OnValidation) and step % 50 == 0:
            schedule.update(abs(step - 600))
    return rates


def panel(name: str, column: int, row: int) -> str:
    """One schedule as a group of SVG elements."""
    text, top, schedules = PANELS[name]
    left, base = MARGIN + column * WIDTH, (row + 1) * HEIGHT - MARGIN
    wide, high = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN - 12
    lines = []
    for schedule in schedules:
        rates = curve(schedule)
        points = [
            f"{left + wide * i / (len(rates) - 1):.1f},{base - high * rate / top:.1f}" for i, rate in enumerate(rates)
        ]
        lines.append(f'<polyline points="{" ".join(points)}"/>')
    return "\n".join([
        f'<text x="{left}" y="{base - high - 18}" class="name">{name}</text>',
        f'<text x="{left}" y="{base - high - 6}">{text}</text>',
        f'<path d="M{left} {base - high}V{base}H{left + wide}"/>',
        f'<text x="{left - 4}" y="{base}" class="tick">0</text>',
        f'<text x="{left - 4}" y="{base - high + 8}" class="tick">{top:g}</text>',
        *lines,
    ])  # fmt: skip


def picture() -> str:
    """The whole SVG file."""
    panels = [panel(name, i % COLUMNS, i // COLUMNS) for i, name in enumerate(PANELS)]
    rows = -(-len(PANELS) // COLUMNS)
    style = (
        "text{font:9px sans-serif;fill:#808080}.name{font-weight:bold;font-size:11px}.tick{text-anchor:end}"
        "path{fill:none;stroke:#808080}polyline{fill:none;stroke:#2f80c0;stroke-width:1.6}"
    )
    size = f'width="{COLUMNS * WIDTH + MARGIN}" height="{rows * HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{style}</style>\n' + "\n".join(panels) + "\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("schedules.svg").write_text(picture(), encoding="utf-8")
