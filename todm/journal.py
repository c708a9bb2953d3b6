"""What training tells: log.jsonl, TensorBoard and a progress bar."""

import contextlib
import json
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from todm.files import atomic_write

SHOWN = ("loss_alone", "loss_largest", "loss_smallest", "divergence")
"""Values of a row beside the progress bar."""


class EventFile:
    """What TensorBoard reads.

    Not torch's SummaryWriter: its thread would die with a traceback of its own when the disk is full.

    Args:
        folder: Where the file is made.
        first: The first step that will be written; TensorBoard forgets what older files hold from there on.
    """

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.file = open(folder / name, "wb")  # noqa: SIM115
        self._records = RecordWriter(self.file)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: dict[str, float]) -> None:
        """Record values by name."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._write(Event(step=step, summary=summary))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


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
        self.board = EventFile(folder / "tensorboard", update + 1)
        every = 1.0 if sys.stderr.isatty() else 15.0
        self.bar = tqdm(total=updates, initial=update, unit="update", dynamic_ncols=True, mininterval=every)
        self.dev: dict[str, str] = {}

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        for file in (self.board.file, self.log):
            # What ended the run is what is told, not that its last lines could not be written either.
            with contextlib.suppress(*[OSError] if error else []):
                file.close()

    def write(self, row: dict[str, Any]) -> None:
        """Record one update."""
        self.board.add(row["update"], {key: value for key, value in row.items() if isinstance(value, float)})
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
        self.board.file.flush()
        self.log.flush()
