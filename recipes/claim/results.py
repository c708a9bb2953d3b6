"""The tables and pictures of the claim, from the files of a benchmark's folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from todm.errors import TodmError
from todm.files import atomic_write, read_json, write_json
from todm.recipes.claim.bootstrap import Bootstrap, Interval

TRAININGS = "trainings"
SUPERNET = "supernet"
MISTAKES = "mistakes.json"


@dataclass(frozen=True)
class Side:
    """All trainings of one side at one learning rate: the supernet, or one net alone."""

    rate: float
    errors: dict[str, np.ndarray]
    """(seeds, utterances) of each net, test set."""
    params: dict[str, int]
    words: np.ndarray
    """(utterances,)"""
    seconds: float
    """Of training, median over seeds."""
    audio_hours: float
    """Through a net, one training."""
    made: dict[str, str]
    """`updates` and `cpu` of the first training."""
    dates: list[str]
    """Of all its trainings."""


def chosen_rate(folder: Path) -> float:
    """The learning rate with which a side's first training errs least on the dev set, over all its nets.

    Raises:
        TodmError: no training of the side is finished.
    """
    errors: dict[float, int] = {}
    for path in sorted(folder.glob(f"lr*/seed*/{MISTAKES}")):
        nets = read_json(path)["nets"].values()
        errors.setdefault(float(path.parent.parent.name.removeprefix("lr")), sum(sum(n["dev"]["errors"]) for n in nets))
    if not errors:
        raise TodmError(f"{folder} holds no finished training; type: todm run claim --out {folder.parent.parent}")
    return min(errors, key=lambda rate: errors[rate])


def read_log(run: Path) -> list[dict[str, Any]]:
    """What a run logged of each update."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def busy_seconds(log: Sequence[dict[str, Any]]) -> float:
    """Seconds of training without those of waiting for data, over all sessions of a run.

    An update that took longer than 20 times the median counts as the median: an evaluation, or the machine slept.
    """
    clock = np.array([row["seconds"] * (1 - row["waiting"]) for row in log])
    spent = np.diff(clock, prepend=0.0)
    spent = np.where(spent < 0, clock, spent)  # the clock starts anew where a run was resumed
    median = np.median(spent)
    return float(np.where(spent > 20 * median, median, spent).sum())


def read_side(folder: Path) -> Side:
    """The trainings of a side at its chosen learning rate."""
    rate = chosen_rate(folder)
    runs = [read_json(path) for path in sorted(folder.glob(f"lr{rate:g}/seed*/{MISTAKES}"))]
    nets = list(runs[0]["nets"])
    return Side(
        rate,
        {net: np.array([run["nets"][net]["test"]["errors"] for run in runs], float) for net in nets},
        {net: int(runs[0]["nets"][net]["params"]) for net in nets},
        np.array(runs[0]["nets"][nets[0]]["test"]["words"]),
        median(run["seconds"] for run in runs),
        runs[0]["audio_hours"],
        {key: str(runs[0][key]) for key in ("updates", "cpu")},
        [run["date"] for run in runs],
    )


def summary(folder: Path, sizes: Sequence[str]) -> dict[str, Any]:
    """The claim in numbers: for every size both error rates, the difference, and what each side cost."""
    trainings = folder / TRAININGS
    family, alone = read_side(trainings / SUPERNET), {size: read_side(trainings / size) for size in sizes}
    seeds = min(len(errors) for side in (family, *alone.values()) for errors in side.errors.values())
    draws = Bootstrap(family.words, seeds)
    dates = [date for side in (family, *alone.values()) for date in side.dates]
    rows = []
    for size in sizes:
        mine, its = family.errors[size][:seeds], alone[size].errors[size][:seeds]
        rows.append(
            {
                "size": size, "params": family.params[size], "rate_alone": alone[size].rate,
                "alone": draws.rate(its), "subnet": draws.rate(mine), "difference": draws.difference(mine, its),
                "relative": draws.relative([mine], [its]),
                "seconds": alone[size].seconds, "audio_hours": alone[size].audio_hours,
            }
        )  # fmt: skip
    return {
        "seeds": seeds, "utterances": len(family.words), "words": int(family.words.sum()), "rows": rows,
        "mean_relative": draws.relative(
            [family.errors[size][:seeds] for size in sizes], [alone[size].errors[size][:seeds] for size in sizes]
        ),
        "made": family.made | {"date": " to ".join(sorted({min(dates), max(dates)}))},
        "family": {"rate": family.rate, "seconds": family.seconds, "audio_hours": family.audio_hours},
    }  # fmt: skip


def as_markdown(claim: dict[str, Any]) -> str:
    """The claim for people: rates with their 95 % intervals."""
    lines = [
        "| size | parameters | alone, WER % | subnet, WER % | points apart | relative, % | seconds alone | its rate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in claim["rows"]:
        cells = [row["size"], f"{row['params']:,}", *(_interval(row[key]) for key in ("alone", "subnet"))]
        cells += [_interval(row["difference"], "+"), _interval(row["relative"], "+", 1), f"{row['seconds']:.0f}"]
        cells += [f"{row['rate_alone']:g}"]
        lines.append("| " + " | ".join(cells) + " |")
    family, largest = claim["family"], claim["rows"][-1]
    total = sum(row["seconds"] for row in claim["rows"])
    return "\n".join(lines) + (
        f"\n\nMean relative difference: {_interval(claim['mean_relative'], '+', 1)} %. {claim['seeds']} seeds, "
        f"{claim['utterances']} utterances, {claim['words']} words; 95 % intervals, a bootstrap over seeds and "
        f"utterances. One supernet, at a rate of {family['rate']:g}, took {family['seconds']:.0f} s and "
        f"{family['audio_hours']:.1f} audio-hours through nets, the largest net alone {largest['seconds']:.0f} s "
        f"and {largest['audio_hours']:.1f} audio-hours, all sizes {total:.0f} s. "
        "These are medians of the wall's clock, and other work ran beside: what the family costs is measured by "
        "`python -m bench.step`.\n"
    )


def _interval(estimate: Interval, sign: str = "", digits: int = 2) -> str:
    return f"{estimate.value:{sign}.{digits}f} [{estimate.low:{sign}.{digits}f}, {estimate.high:{sign}.{digits}f}]"


def write_results(folder: Path, sizes: Sequence[str]) -> dict[str, Any]:
    """claim.json, claim.md, error.svg and cost.svg in a benchmark's folder; returns what claim.json holds.

    Raises:
        TodmError: a side has no finished training.
    """
    from todm.recipes.claim import charts

    claim = summary(folder, sizes)
    write_json(folder / "claim.json", plain(claim))
    atomic_write(folder / "claim.md", as_markdown(claim))
    atomic_write(folder / "error.svg", charts.errors(claim))
    atomic_write(folder / "cost.svg", charts.costs(claim))
    return plain(claim)


def plain(value: Any) -> Any:
    """The same with intervals as [value, low, high], as JSON holds them."""
    if isinstance(value, Interval):
        return [round(number, 4) for number in (value.value, value.low, value.high)]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
