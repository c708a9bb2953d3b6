"""Tables of a run that verbs add to: CSV files in which a row replaces the one it succeeds."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from todm.files import atomic_write


def put_rows(path: Path, rows: list[dict[str, Any]], keys: Sequence[str]) -> None:
    """Add rows to a table, each in the place of any that has the same values of `keys`. Columns are added as needed."""

    def name(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row.get(key, "")) for key in keys)

    new, old = {name(row) for row in rows}, list[dict[str, Any]]()
    if path.exists():
        with open(path, encoding="utf-8", newline="") as file:
            old = [row for row in csv.DictReader(file) if name(row) not in new]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in [*old, *rows] for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows([*old, *rows])
    atomic_write(path, text.getvalue())
