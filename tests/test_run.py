"""The run folder: what it remembers, and when it refuses."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from todm.errors import TodmError
from todm.files import write_json
from todm.recipe import Recipe, load_recipe
from todm.run import Run


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    task = Path(__file__).parent / "toy_task.py"
    (tmp_path / "recipe.yaml").write_text(f"name: toy\ntask: {task}:ToyTask\ndata: {{batch: 8}}\n")
    return load_recipe(str(tmp_path))[0]


def test_a_run_is_opened_as_it_was_made(recipe, tmp_path):
    made = Run.create(tmp_path / "run", recipe, tmp_path, "never")
    opened = Run.open(str(tmp_path / "run"))
    assert (opened.recipe, opened.home) == (recipe, tmp_path)
    assert opened.task().data.batch == 8
    assert opened.task() is opened.task()
    opened.note(data={"source": "x"})
    assert made.info["data"] == {"source": "x"}
    assert {"name", "seed", "created", "machine", "versions", "threads", "git_commit"} <= made.info.keys()
    assert made.info["threads"] == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == made.info


def test_a_folder_left_by_a_crash_on_the_way_can_be_taken(recipe, tmp_path):
    write_json(tmp_path / "run" / "run.json", {"created": "half"})  # written before recipe.yaml
    with pytest.raises(TodmError, match="is not a run folder"):
        Run.open(tmp_path / "run")
    assert Run.create(tmp_path / "run", recipe, tmp_path, "never").info["created"] != "half"


def test_stages_add_up(recipe, tmp_path):
    run = Run.create(tmp_path / "run", recipe, tmp_path, "never")
    for _ in range(2):
        with run.timed("train"):
            time.sleep(0.15)
    with run.timed("search"):
        pass
    assert run.info["seconds"] == {"train": pytest.approx(0.3, abs=0.15), "search": 0.0}


def test_one_process_at_a_time(recipe, tmp_path):
    run = Run.create(tmp_path / "run", recipe, tmp_path, "never")
    code = f"from todm.run import Run\nwith Run.open({str(run.path)!r}).locked():\n    print('in', flush=True)\n    input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"in\n"
    with pytest.raises(TodmError, match="another process is at work in .*; wait for it or stop it"), run.locked():
        pass
    holder.kill()  # a killed process leaves no lock behind
    holder.communicate()
    with run.locked():
        pass


@pytest.mark.parametrize("harm", ["missing", "[]", '{"name": "toy"}', "{"])
def test_a_damaged_run_json_is_one_line(recipe, tmp_path, harm):
    run = Run.create(tmp_path / "run", recipe, tmp_path, "never")
    path = run.path / "run.json"
    path.unlink() if harm == "missing" else path.write_text(harm)
    with pytest.raises(TodmError, match=r"run\.json") as error:
        Run.open(run.path)
    assert "\n" not in str(error.value)
