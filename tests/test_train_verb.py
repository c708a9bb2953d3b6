"""Training through the command line, in processes of their own: killed, interrupted, asked for what is not there."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from run_folder import equal, log_of, weights

from todm.checkpoint import list_checkpoints
from todm.cli import main
from todm.run import Run

RECIPE = f"""
name: toy
task: {Path(__file__).parent / "toy_task.py"}:ToyTask
seed: 3
training: {{updates: 400, growth: 0.2, divergence: kl, distillation_start: 0.4,
  evaluate_every: 100, checkpoint_every: 10}}
"""


def start(recipe: Path, out: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "todm", "train", str(recipe), "--out", str(out), *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def newest(out: Path) -> int:
    files = list_checkpoints(out / "checkpoints")
    return int(files[-1].stem.removeprefix("update-")) if files else 0


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_killed_at_random_and_resumed_it_ends_in_the_same_weights(recipe, tmp_path):
    undisturbed, killed = start(recipe, tmp_path / "whole"), tmp_path / "killed"
    rng, stops = random.Random(), []
    for sign in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGKILL):
        before = newest(killed)
        process = start(recipe, killed, "--resume", "auto")
        while newest(killed) <= before + 10 and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(sign)
        _, err = process.communicate(timeout=300)
        stops.append((sign.name, newest(killed)))
        if sign == signal.SIGINT:
            assert process.returncode == 130
            assert int(re.search(r"stopped at update (\d+)", err)[1]) == newest(killed)
        else:
            assert process.returncode == -signal.SIGKILL
        assert "Traceback" not in err
    assert all(a < b for (_, a), (_, b) in pairwise(stops)), stops
    assert newest(killed) < 400, stops  # it was in the middle each time
    assert start(recipe, killed, "--resume", "auto").wait(300) == 0
    assert undisturbed.wait(300) == 0
    assert newest(killed) == newest(tmp_path / "whole") == 400
    assert equal(weights(killed), weights(tmp_path / "whole")), stops
    assert log_of(killed) == log_of(tmp_path / "whole"), stops


def quick(recipe: Path, out: Path, *arguments: str) -> int:
    return main(["train", str(recipe), "--out", str(out), "--training.updates", "20", *arguments])


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


def error_line(capsys) -> str:
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if line.startswith("todm: ")]
    assert "Traceback" not in err
    return line


def test_a_run_folder_is_taken_up_by_its_own_recipe_only(recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert quick(recipe, out) == 0
    facts = Run.open(out).info
    assert (facts["name"], facts["seed"], facts["data"]["licence"]) == ("toy", 3, "cc0-1.0")
    assert facts["versions"]["torch"]
    assert facts["machine"]["cores"] == os.cpu_count()
    assert facts["seconds"]["train"] > 0
    before = times(out)
    assert quick(recipe, out) == 2
    assert "holds a run already; go on with --resume auto, or choose another --out" in error_line(capsys)
    for change in (["--training.lr", "0.01"], ["--model.dropout", "0.2"], ["--seed", "4"], ["--data.batch", "16"]):
        assert quick(recipe, out, "--resume", "auto", *change) == 2
        assert "was made with other settings; type the same ones or choose another --out" in error_line(capsys)
    with Run.open(out).locked():
        assert quick(recipe, out, "--resume", "auto") == 2
    assert f"another process is at work in {out}; wait for it or stop it" in error_line(capsys)
    assert times(out) == before
    trained = weights(out)
    assert quick(recipe, out, "--resume", "auto") == 0  # done already: nothing is trained again
    assert equal(weights(out), trained)
    assert len(log_of(out)) == 20
