"""Reading the files of a run folder for people to look at: numbers are finite floats, or None."""

import csv
import json
import math
from pathlib import Path
from typing import Any

from todm.errors import TodmError
from todm.files import read_json

Row = dict[str, Any]
WORDS = {"subnet", "device", "runtime", "precision", "form", "cpu"}


def _clean(value: Any) -> Any:
    """Numbers as finite floats or None: a loss may be NaN, the JSON in a page may not."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    return value


def json_numbers(path: Path) -> Row:
    """A JSON object, empty where there is no such file; as `read_json` else."""
    return _clean(read_json(path)) if path.exists() else {}


def log_lines(path: Path) -> list[Row]:
    """Lines of the training log by update: a resumed run writes some twice, a killed one half a line."""
    merged: dict[float, Row] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            row = _clean(json.loads(line))
            merged.setdefault(float(row["update"]), {}).update(row)
        except (ValueError, KeyError, TypeError):
            continue
    return [merged[update] for update in sorted(merged)]


def csv_rows(path: Path, needed: set[str]) -> list[Row]:
    """Rows of a CSV file, none where there is no such file: words as they stand, all else numbers or None.

    Raises:
        TodmError: a column of `needed` is missing.
    """

    def value(key: str, text: str | None) -> Any:
        try:
            return arch_words(json.loads(text or "{}")) if key == "arch" else _clean(float(text or "nan"))
        except (ValueError, AttributeError):
            return None

    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        table = list(csv.DictReader(file))
    if table and not needed <= table[0].keys():
        raise TodmError(f"{path} lacks a column of {', '.join(sorted(needed))}; delete it and make it again")
    return [{k: v or "" if k in WORDS else value(k, v) for k, v in row.items() if k} for row in table]


def arch_words(arch: dict[str, float]) -> str:
    """An architecture in a line: `depth 4 · ff 64 96 64 128`."""
    groups: dict[str, list[str]] = {}
    for name, value in arch.items():
        groups.setdefault(name.rstrip("0123456789"), []).append(f"{value:g}")
    return " · ".join(f"{name} {' '.join(values)}" for name, values in groups.items())
