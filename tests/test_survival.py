"""What machines do to a run: disks that fill up, processes that are killed. One clear line each time, and it goes on."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from todm.checkpoint import list_checkpoints, newest_checkpoint
from todm.export.bundle import load_bundle

RECIPE = f"""
name: toy
task: {Path(__file__).parent / "toy_task.py"}:ToyTask
training: {{updates: 200, growth: 0.2, divergence: adaptive, distillation_start: 0.4,
  evaluate_every: 100, checkpoint_every: 10}}
search: {{trials: 6, measured: 3, family: 2}}
export: {{runtimes: [onnx], precisions: [float]}}
"""
TODM = [sys.executable, "-m", "todm"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with the recipe and an undisturbed training."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "recipe.yaml").write_text(RECIPE)
    subprocess.run([*TODM, "train", str(folder / "recipe.yaml"), "--out", str(folder / "run")], check=True)
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    state, damaged = newest_checkpoint(run / "checkpoints")
    assert not damaged
    return state["model"]


def same(run: Path, other: Path) -> bool:
    """Whether both were trained to the end, and to the same weights, with every update logged once."""
    ours, theirs = weights(run), weights(other)
    rows = [json.loads(line)["update"] for line in (run / "log.jsonl").read_text().splitlines()]
    return rows == list(range(1, 201)) and all(torch.equal(value, theirs[key]) for key, value in ours.items())


def the_line(err: str) -> str:
    """What a user is told, the progress bar aside."""
    assert "Traceback" not in err, err
    assert "Exception" not in err, err
    (line,) = [line for line in err.splitlines() if line.startswith("todm: ")]
    return line


def half_written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


MOUNT = "mount -t tmpfs -o size={size} none {place} && "


def unshared(script: str) -> subprocess.CompletedProcess:
    """Run a shell script that may mount file systems nobody else sees."""
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )


def test_a_full_disk_ends_any_stage_and_the_run_goes_on_with_room(whole, tmp_path):
    """A file system too small to train in, then too small to search in, then with room, then full again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if unshared(MOUNT.format(size="64k", place=disk) + "true").returncode:
        pytest.skip("this user may not mount a file system")
    script = f"{sys.executable} {Path(__file__).with_name('small_disk.py')} {whole / 'recipe.yaml'} {disk} {tmp_path / 'kept'}"
    done = unshared(MOUNT.format(size="300k", place=disk) + script)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    lines = [the_line(one) for one in told["errors"]]
    assert len(lines) == 3, lines
    assert all("make room" in line for line in lines), lines
    assert not any(told["half_written"])
    assert same(tmp_path / "kept", whole / "run")
    bundles = list((tmp_path / "kept" / "subnets").glob("*/bundle"))
    assert len(bundles) == 2
    for bundle in bundles:
        load_bundle(bundle)


def disturbed(command: list[str], out: Path, harm: Callable[[int], object]) -> str:
    """Do something to a process of that training once it has saved twice; what it says when it ends."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while len(list_checkpoints(out / "checkpoints")) < 2 and process.poll() is None:
        time.sleep(0.01)
    harm(process.pid)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert not half_written(out)
    assert 0 < newest_checkpoint(out / "checkpoints")[0]["update"] < 200
    return the_line(err)


def kill_loader(pid: int) -> None:
    (loader,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(loader), signal.SIGKILL)


def fill_disk(pid: int) -> None:
    """No file may grow beyond a kilobyte any more: the error of a full disk, for every user."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (fill_disk, "File too large; make room, then type the command again (`todm train` with --resume auto)"),
        (kill_loader, "a process that prepares batches has died, after update"),
    ],
)
def test_training_is_ended_with_one_line_and_goes_on(whole, tmp_path, harm, said):
    out = tmp_path / "run"
    command = [*TODM, "train", str(whole / "recipe.yaml"), "--out", str(out), "--resume", "auto", "--data.workers", "1"]
    assert said in disturbed(command, out, harm)
    subprocess.run(command, check=True, capture_output=True)
    assert same(out, whole / "run")
