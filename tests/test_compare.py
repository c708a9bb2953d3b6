"""Variants of the toy recipe against each other: what is trained, kept, and said of it."""

import csv
import json
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from todm.cli import main
from todm.compare import Comparison, as_markdown, best_on_dev, collect, load_comparison, seconds_of, summarise
from todm.errors import TodmError
from todm.files import write_json

RECIPE = f"""
name: toy
task: {Path(__file__).parent / "toy_task.py"}:ToyTask
training: {{updates: 40, nets: alone, arch: largest, growth: 0, optimizer: adamw, lr: 0.01, lr_schedule: cosine}}
"""
COMPARISON = """
baseline: adamw
seeds: 2
quick: {training: {updates: 10}}
rows:
  adamw: {}
  small: {training: {arch: smallest}}
"""


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "compare.yaml").write_text(COMPARISON)
    return tmp_path


def test_every_row_is_trained_with_every_seed_and_only_once(home, capsys):
    command = ["compare", str(home), "--out", str(home / "out"), "--quick", "--json"]
    assert main(command) == 0
    table = json.loads(capsys.readouterr().out)
    assert [(line["row"], line["net"], line["seeds"]) for line in table] == [
        ("adamw", "alone", 2),
        ("small", "alone", 2),
    ]
    with open(home / "out" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["seed"]) for row in rows] == [
        ("adamw", "0"),
        ("adamw", "1"),
        ("small", "0"),
        ("small", "1"),
    ]
    assert rows[0]["error"] != rows[2]["error"]
    assert "| small |" in (home / "out" / "table.md").read_text()
    logs = {path: path.stat().st_mtime_ns for path in home.glob("out/*/*/log.jsonl")}
    assert len(logs) == 4
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in logs} == logs
    assert main([*command[:3], str(home / "other"), "--quick", "--rows", "small", "--seeds", "1"]) == 0
    assert {path.parent.name for path in (home / "other").glob("*/*/result.json")} == {"seed0"}


def test_a_result_of_other_settings_is_refused(home, capsys):
    out = home / "out"
    command = ["compare", str(home), "--out", str(out), "--rows", "small", "--seeds", "1", "--training.updates", "10"]
    assert main(command) == 0
    kept = (out / "small" / "seed0" / "result.json").read_text()
    capsys.readouterr()
    assert main([*command, "--training.lr", "0.02"]) == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    assert f"row 'small' was trained in {out}/small/seed0 with training.lr 0.01, which is now 0.02" in message
    assert message.endswith(f"rm -r {out}/small/seed0")
    # The same settings in other words, and settings that no training depends on, are no difference.
    rows = COMPARISON.replace("{arch: smallest}}", "{arch: smallest, warmup: 100}, data: {batch: 32}, model: {}}")
    (home / "compare.yaml").write_text(rows.replace("seeds: 2", "settings: {search: {trials: 3}}"))
    assert main(command) == 0
    (home / "compare.yaml").write_text(rows.replace("batch: 32", "batch: 16"))
    assert main(command) == 2
    assert "data.batch 32, which is now 16" in capsys.readouterr().err
    assert (out / "small" / "seed0" / "result.json").read_text() == kept


def test_what_is_wrong_with_a_comparison_is_said(home, capsys):
    assert main(["compare", str(home), "--out", str(home / "out"), "--rows", "huge"]) == 2
    assert "no row 'huge'" in capsys.readouterr().err
    (home / "compare.yaml").write_text("baseline: x\nrows: {a: {}}")
    with pytest.raises(TodmError, match="baseline 'x' is not one of the rows: a"):
        load_comparison(home)


def test_differences_are_paired_by_seed(tmp_path):
    pairs = {"a": [3.0, 5.0, 4.0], "b": [2.0, 4.5, 2.5]}
    for row, values in pairs.items():
        for seed, value in enumerate(values):
            (tmp_path / row / f"seed{seed}").mkdir(parents=True)
            result = {"test": {"alone": {"error": value}}, "dev": {}, "seconds": 2.0}
            write_json(tmp_path / row / f"seed{seed}" / "result.json", result)
    plan = Comparison(rows={"a": {}, "b": {}}, baseline="a")
    a, b = table = summarise(collect(tmp_path, plan.rows), plan.baseline)
    assert "error_difference" not in a
    assert (a["error"], a["error_sd"], b["error_difference"]) == (4.0, 1.0, -1.0)
    interval = ttest_rel(pairs["b"], pairs["a"]).confidence_interval(0.95)
    assert b["error_interval"] == pytest.approx((interval.high - interval.low) / 2)
    assert "| b | 3 ± 1.3 | -1 ± 1.2 | 3 | 2 |" in as_markdown(table)


def test_the_best_dev_value_and_when_it_came():
    rows = [(1, None), (2, 5.0), (3, 4.0), (4, 4.5)]
    log = [{"update": u, **({"dev": {"alone": {"error": e, "other": -e}}} if e else {})} for u, e in rows]
    assert best_on_dev(log) == {"alone": {"best dev error": 4.0, "at update": 3}}


def test_seconds_of_a_run_that_went_on_are_those_of_all_its_sessions() -> None:
    sessions = [1.0, 2.0, 3.5], [0.5, 1.5], [0.4]
    assert seconds_of([{"seconds": seconds} for session in sessions for seconds in session]) == pytest.approx(
        3.5 + 1.5 + 0.4
    )
