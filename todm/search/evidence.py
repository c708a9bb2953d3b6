"""What a run knows of its subnets on a device, read from its files: nothing is trained, built or measured for it."""

import csv
import json
from pathlib import Path
from statistics import mean
from typing import Any

from todm.errors import TodmError
from todm.files import read_json
from todm.search.advise import Option
from todm.search.budget import METRICS
from todm.search.predictor import Predictor
from todm.search.spread import arch_key
from todm.space import Arch, SearchSpace

EXACT = ("params", "macs")
"""Costs that need no device."""


def options_of(run: Path, device: str, runtime: str, precision: str) -> tuple[list[Option], str]:
    """Every subnet as it was measured on a device, and every searched one as predicted for it, with the error's name.

    Args:
        run: Folder of the run.
        device: Name of the device profile.
        runtime: Runtime that the device measures candidates with, and so predictions are for.
        precision: Precision, likewise.

    Raises:
        TodmError: nothing was searched, or nothing measured on this device.
    """
    table = run / "search" / "front.csv"
    if not table.exists():
        raise TodmError(f"{run} has no search results; type: todm search {run} --device {device}")
    rows = _rows(table)
    metric = next(iter(rows[0]))
    candidates = {arch_key(arch := json.loads(row["arch"])): (arch, float(row[metric]), _exact(row)) for row in rows}
    dev = {key: error for key, (_, error, _) in candidates.items()}
    measured = _measured(run, device, metric, dev)
    seen = [(arch, row) for arch, row in _samples(run, device)]
    seen += [
        (o.arch, {name: value for name, (value, _) in o.costs.items()})
        for o in measured
        if (o.runtime, o.precision) == (runtime, precision)
    ]
    if len({arch_key(arch) for arch, _ in seen}) < 3:
        raise TodmError(
            f"nothing was measured on {device} in {run} to predict from; type: todm search {run} --device {device}"
        )
    costs = {key: exact for key, (_, _, exact) in candidates.items()} | {
        arch_key(arch): _exact(row) for arch, row in seen
    }
    predict = Predictor(_space([*(json.loads(key) for key in costs)]), lambda arch: costs[arch_key(arch)], seen).predict
    changes = [abs(option.score - option.dev) for option in measured]
    done = {arch_key(option.arch) for option in measured if (option.runtime, option.precision) == (runtime, precision)}
    shift = mean(changes) if changes else 0.0
    guesses = [
        Option(
            arch, error, error, shift, predict(arch) | {name: (exact[name], 0.0) for name in EXACT}, runtime, precision
        )
        for key, (arch, error, exact) in candidates.items()
        if key not in done
    ]
    return measured + guesses, metric


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _exact(row: Any) -> dict[str, float]:
    return {name: float(row[name]) for name in EXACT}


def _samples(run: Path, device: str) -> list[tuple[Arch, dict[str, float]]]:
    """The exported candidates that a search measured on the device."""
    path = run / "search" / f"measurements-{device}.json"
    rows = read_json(path)["rows"] if path.exists() else []
    return [(arch, {name: row[name] for name in METRICS if row.get(name) is not None}) for arch, row in rows]


def _measured(run: Path, device: str, metric: str, dev: dict[str, float]) -> list[Option]:
    """Exported subnets whose files were measured on the device."""
    found = []
    for row in _rows(run / "bench.csv") if (run / "bench.csv").exists() else ():
        folder = run / "subnets" / row["subnet"]
        if row["device"] != device or not (folder / "arch.json").exists() or not row.get(metric):
            continue
        arch = read_json(folder / "arch.json")
        costs = {name: (float(row[name]), 0.0) for name in METRICS if row.get(name)}
        error = dev.get(arch_key(arch), read_json(folder / "metrics.json")["dev"][metric])
        found.append(
            Option(arch, error, float(row[metric]), 0.0, costs, row["runtime"], row["precision"], row["subnet"], True)
        )
    return found


def _space(archs: list[Arch]) -> SearchSpace:
    """The values that were looked at, all of them in use: these architectures are canonical."""
    choices = {name: tuple(sorted({arch[name] for arch in archs})) for name in archs[0]}
    return SearchSpace(choices, {name: [()] for name in choices})
