"""What training tells: log.jsonl, TensorBoard and a progress bar."""

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from todm.files import atomic_write

SHOWN = ("loss_shallowest", "loss_alone", "loss_largest", "loss_smallest", "divergence")
"""Values of a row beside the progress bar."""


class Journal:
    """The record of a run, from an update on.

    Args:
        folder: The run folder.
        update: The last update that counts: what was logged after it is dropped, as it is about to be made again.
        updates: Updates of the whole training.
    """

    def __init__(self, folder: Path, update: int, updates: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("}\n")]
            atomic_write(path, "".join(line for line in whole if json.loads(line)["update"] <= update))
        self.log = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self.board = SummaryWriter(folder / "tensorboard", purge_step=update + 1)
        every = 1.0 if sys.stderr.isatty() else 15.0
        self.bar = tqdm(total=updates, initial=update, unit="update", dynamic_ncols=True, mininterval=every)
        self.dev: dict[str, str] = {}

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        self.board.close()
        self.log.close()

    def write(self, row: dict[str, Any]) -> None:
        """Record one update."""
        for key, value in row.items():
            if isinstance(value, float):
                self.board.add_scalar(key, value, row["update"])
        self.log.write(json.dumps(row) + "\n")
        if "dev" in row:
            self.dev = {net: f"{next(iter(metrics.values())):.1f}" for net, metrics in row["dev"].items()}
        waiting = {"waiting": f"{row['waiting']:.0%}"}
        self.bar.set_postfix(
            {key: f"{row[key]:.3f}" for key in SHOWN if key in row} | self.dev | waiting, refresh=False
        )
        self.bar.update()

    def flush(self) -> None:
        """Put the log on disk, before a checkpoint that counts on it."""
        self.log.flush()
