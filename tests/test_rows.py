"""A row takes the place of the one with the same keys, and of no other."""

import csv
from pathlib import Path

from todm.rows import put_rows


def test_rows_replace_their_own_kind(tmp_path: Path) -> None:
    path = tmp_path / "bench.csv"
    put_rows(
        path,
        [{"subnet": "a", "device": "pi", "ms": 1.5}, {"subnet": "b", "device": "pi", "ms": 2.5}],
        ["subnet", "device"],
    )
    put_rows(path, [{"subnet": "a", "device": "local", "ms": None, "note": "new, with a comma"}], ["subnet", "device"])
    put_rows(path, [{"subnet": "a", "device": "pi", "ms": 9}], ["subnet", "device"])
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"subnet": "b", "device": "pi", "ms": "2.5", "note": ""},
        {"subnet": "a", "device": "local", "ms": "", "note": "new, with a comma"},
        {"subnet": "a", "device": "pi", "ms": "9", "note": ""},
    ]
