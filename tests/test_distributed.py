"""Several processes train what one does, started as users start them: by torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from distributed_worker import CONFIG

from todm.checkpoint import list_checkpoints, newest_checkpoint
from todm.distributed import Shard
from todm.errors import TodmError

HERE = Path(__file__).parent
RECIPE = f"""
name: toy
task: {HERE / "toy_task.py"}:ToyTask
training: {{updates: 400, growth: 0.2, divergence: kl, distillation_start: 0.4,
  evaluate_every: 100, checkpoint_every: 10}}
"""


def torchrun(*command: str) -> list[str]:
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command,
    ]  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return newest_checkpoint(folder / "checkpoints")[0]["model"]


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_shard_is_every_so_manieth_item():
    parts = [Shard(rank, 3).of(range(8)) for rank in range(3)]
    assert [list(part) for part in parts] == [[0, 3, 6], [1, 4, 7], [2, 5]]
    with pytest.raises(TodmError, match="a batch of 2 cannot be split between 3 processes; enlarge batches"):
        Shard(0, 3).of([1, 2])


def test_two_processes_with_parts_of_each_batch_train_what_one_does(tmp_path):
    """To 1e-9 in float64, with batches of uneven size, through clipping and distillation."""
    worker = str(HERE / "distributed_worker.py")
    alone = subprocess.Popen([sys.executable, worker, str(tmp_path / "one")])
    subprocess.run(torchrun(worker, str(tmp_path / "two")), check=True, capture_output=True)
    assert alone.wait() == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one["into.weight"].dtype == torch.float64
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-9
    logs = [log_of(tmp_path / n) for n in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) == CONFIG.updates
    for ours, theirs in zip(*logs, strict=True):
        for row in (ours, theirs):
            del row["seconds"], row["waiting"]
        assert ours.pop("dev", None) == theirs.pop("dev", None)
        assert ours.pop("average", None) == theirs.pop("average", None)
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_one_of_two_processes_is_killed_and_training_goes_on(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    out, train = tmp_path / "run", ["-m", "todm", "train", str(tmp_path / "recipe.yaml"), "--resume", "auto", "--out"]
    command = torchrun(*train, str(out))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list_checkpoints(out / "checkpoints")) < 2 and process.poll() is None:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert process.wait(300) != 0
    stopped = newest_checkpoint(out / "checkpoints")[0]["update"]
    assert 0 < stopped < 400
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert newest_checkpoint(out / "checkpoints")[0]["update"] == 400
    rows = [row["update"] for row in log_of(out)]
    assert rows == list(range(1, 401))
    subprocess.run(torchrun(*train, str(tmp_path / "whole")), check=True, capture_output=True)
    whole = weights(tmp_path / "whole")
    assert all(torch.equal(value, whole[key]) for key, value in weights(out).items())
