"""The claim's benchmark: its statistics against closed forms, its batches on disk, and the whole of it, small."""

import csv
import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from todm.recipes.claim import axes, front, page
from todm.recipes.claim.bootstrap import Bootstrap, Interval
from todm.recipes.claim.results import busy_seconds
from todm.recipes.claim.task import ClaimData, ClaimModel, ClaimTask
from todm.speech.task import Batching


def test_interval_of_one_seed_is_that_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    words = np.full(2000, 4)
    errors = rng.binomial(4, 0.1, 2000).astype(float)[None]
    found = Bootstrap(words, 1).rate(errors)
    half = 1.96 * 100 * errors.std() / 4 / 2000**0.5
    assert found.value == pytest.approx(100 * errors.sum() / words.sum())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)


def test_paired_difference_is_narrower_than_its_parts() -> None:
    rng = np.random.default_rng(2)
    words = rng.integers(1, 8, 500)
    hard = rng.binomial(words, 0.2, (5, 500)).astype(float)
    easier = np.maximum(hard - (rng.random((5, 500)) < 0.05), 0)
    draws = Bootstrap(words, 5)
    assert draws.difference(hard, hard).low == draws.difference(hard, hard).high == 0
    found, alone = draws.difference(easier, hard), draws.rate(hard)
    assert found.low < found.value < found.high < 0
    assert found.high - found.low < (alone.high - alone.low) / 2
    assert draws.relative([easier, hard], [hard, hard]).value == pytest.approx(50 * (easier.sum() / hard.sum() - 1))


def test_seeds_widen_the_interval() -> None:
    words = np.full(400, 5)
    alike = np.ones((4, 400))
    unlike = np.repeat([[0.0], [0.5], [1.5], [2.0]], 400, axis=1)
    draws = Bootstrap(words, 4)
    assert draws.rate(alike).high == pytest.approx(20)
    assert draws.rate(unlike).high - draws.rate(unlike).low > 15


def test_pauses_and_waiting_are_not_training() -> None:
    log = [{"seconds": 0.1 * n, "waiting": 0.5} for n in range(1, 11)]
    assert busy_seconds(log) == pytest.approx(0.5)
    slept = [*log, *({"seconds": 601.0 + 0.1 * n, "waiting": 0.0} for n in range(10))]
    assert busy_seconds(slept) == pytest.approx(0.5 + 0.05 + 0.9, abs=0.06)
    resumed = [*log, *({"seconds": 0.1 * n, "waiting": 0.5} for n in range(1, 4))]
    assert busy_seconds(resumed) == pytest.approx(0.65)


def test_kept_batches_come_again(tmp_path: Path) -> None:
    """Whoever asks, from wherever, even where some are lost: the batch of an update is always the same one."""
    data = ClaimData(train=60, dev=6, test=8, kept=3, batching=Batching(seconds=10, workers=0))
    task = ClaimTask(data, ClaimModel(), 0, tmp_path)
    first = list(islice(task.train_batches(0), 8))
    assert len(list(task.batches.iterdir())) == 3
    assert not torch.equal(first[0].tokens, first[1].tokens)
    task.path(4).unlink()
    for start in (0, 2, 4, 7):
        for batch, known in zip(task.train_batches(start), first[start:], strict=False):
            assert torch.equal(batch.features, known.features)
            assert torch.equal(batch.tokens, known.tokens)
    assert all(torch.equal(first[n].features, first[n + 3].features) for n in range(5))
    assert task.seconds_of(6) == 2 * task.seconds_of(3)


def test_whole_benchmark_goes_on_and_ends_alike(tmp_path: Path) -> None:
    environment = os.environ | {"TODM_CACHE": str(tmp_path / "cache")}
    todm = [sys.executable, "-m", "todm", "run", "claim", "--quick", "--out", str(tmp_path / "run")]
    subprocess.run(todm, check=True, env=environment, timeout=300)
    claim = json.loads((tmp_path / "run" / "claim.json").read_text())
    assert [row["size"] for row in claim["rows"]] == ["XS", "S", "M", "L", "XL"]
    params = [row["params"] for row in claim["rows"]]
    assert params == sorted(params) and params[-1] > 2.5 * params[0]
    assert claim["family"]["audio_hours"] > 0
    for chart in ("error.svg", "cost.svg"):
        assert (tmp_path / "run" / chart).read_text().rstrip().endswith("</svg>")

    kept = {path: path.stat().st_mtime for path in (tmp_path / "run").rglob("mistakes.json")}
    next(path for path in kept if "M" in path.parts).unlink()
    subprocess.run(todm, check=True, env=environment, timeout=300)
    again = json.loads((tmp_path / "run" / "claim.json").read_text())
    assert [row["alone"] for row in again["rows"]] == [row["alone"] for row in claim["rows"]]
    assert sum(path.stat().st_mtime != time for path, time in kept.items()) == 1
    _page_of(tmp_path / "run", tmp_path / "RESULTS.md", environment)


def _page_of(run: Path, out: Path, environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, front.__file__, run], check=True, env=environment, timeout=300)
    found = json.loads((run / "front.json").read_text())
    with open(run / "front.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found["architectures"] >= found["sampled"] >= 40
    on_front = [row for row in rows if row["on_front"] == "True"]
    assert len(on_front) == found["front"]
    dev = [float(row["wer_dev"]) for row in on_front]
    assert dev == sorted(dev, reverse=True)
    assert all(min(float(row["wer_dev"]) for row in rows) >= dev[-1] for row in rows)

    ablation = run / "ablation"
    ablation.mkdir()
    lines = [f"{row},{net},{seed},{wer + seed},50" for row, wer in (("plain", 10), ("no & part", 12)) for net in ("largest", "smallest") for seed in (0, 1)]  # fmt: skip
    (ablation / "results.csv").write_text("\n".join(["row,net,seed,wer,seconds", *lines]))
    where = {"recipe": "claim", "cpu": "a processor", "date": "2026-11-28"}
    (ablation / "cost.json").write_text(json.dumps(where | {"milliseconds": {"plain": 40.0, "no & part": 50.0}}))
    (supernet,) = (run / "trainings" / "supernet").glob("*/seed0")
    for row in axes.AXES:
        shutil.copytree(supernet, ablation / row / "seed0")
        (ablation / row / "seed0" / "result.json").write_text("{}")
    subprocess.run([sys.executable, axes.__file__, ablation], check=True, env=environment, timeout=300)
    with open(ablation / "axes.csv", newline="") as file:
        (own, *others) = [{part: float(line[part]) for part in axes.PARTS} for line in csv.DictReader(file)]
    assert others == [own] * 3  # the same supernet under four names
    assert own["all"] == pytest.approx((own["small"] + own["middle"] + own["large"]) / 3)
    update = {"first update": 30.0, "last update": 60.0, "mean update": 52.0}
    sides = {"largest alone": update | {"mean update": 40.0}, "supernet": update, "supernet, nothing shared": update}
    parts = {"largest": {"blocks": 35.0}, "smallest": {"blocks": 5.0}}
    (run / "step.json").write_text(json.dumps(where | {"milliseconds": sides | parts}))
    assert page.main([str(run), "--out", str(out)]) == 0
    text = out.read_text()
    assert "| supernet | 30.0 | 60.0 | 52.0 | 1.300 |" in text
    assert "| blocks | 35.0 | 5.0 |" in text
    assert all(size in text for size in ("| XS |", "| XL |", "| heads chosen too | 1 |"))
    assert "| plain | 2 | 10.5 ± 0.7 |  | 10.5 ± 0.7 |  | 1.00 |" in text
    assert "| no & part | 2 | 12.5 ± 0.7 | +2.0 ± 0.0 | 12.5 ± 0.7 | +2.0 ± 0.0 | 1.25 |" in text
    assert f"{found['architectures']} architectures" in text
    for name in ("error", "cost", "front", "ablation"):
        assert f"docs/claim/{name}.svg" in text
        ElementTree.parse(out.parent / "docs" / "claim" / f"{name}.svg")


@pytest.mark.parametrize(("low", "mean", "kept"), [(-0.5, -3.5, True), (-0.5, -1.0, False), (0.1, -3.5, False)])
def test_the_page_says_whether_the_promise_is_kept(low: float, mean: float, kept: bool) -> None:
    rows = [
        {"size": size, "alone": Interval(alone, 0, 0), "difference": Interval(low + 1, low if size == "S" else -1, 2)}
        for size, alone in (("S", 9.0), ("L", 6.0))
    ]
    said = page.verdict({"rows": rows, "mean_relative": Interval(mean, mean - 1, mean + 1)})
    assert said.startswith(f"**The promise is {'kept' if kept else 'not kept'} here.**")
    assert ("at 2 of 2 sizes (S, L)" if low < 0 else "at 1 of 2 sizes (L)") in said
    assert f"is {mean:+.1f} %" in said and "errs 1.50 times as often" in said


def test_results_are_those_of_the_data_kept_beside_the_recipe(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    written = page.write_page(root / "recipes" / "claim" / "measured", tmp_path / "RESULTS.md").read_text()
    assert written == (root / "RESULTS.md").read_text()


def test_tools_name_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main([str(tmp_path)]) == page.main([str(tmp_path)]) == axes.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all("todm run claim --out" in line for line in said[:2])
    assert "todm compare claim --out" in said[2]
