"""What a run left behind, for tests that compare runs."""

import json
from pathlib import Path

import torch

from todm.checkpoint import newest_checkpoint


def log_of(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "waiting")} for row in rows]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state, warnings = newest_checkpoint(folder / "checkpoints")
    assert not warnings
    return {**state["model"], **{f"average {key}": value for key, value in state["average"].items()}}
