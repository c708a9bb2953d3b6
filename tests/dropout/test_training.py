"""Dropout in the trainer: rates are stepped, logged and heard, penalties count, and a resume changes nothing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from toy_task import ToyData, ToyModel, ToyTask

from todm import SearchSpace, activate, dropout, extract
from todm.checkpoint import list_checkpoints, newest_checkpoint
from todm.errors import TodmError
from todm.recipe import Training
from todm.sandwich import accumulate_gradients
from todm.trainer import Trainer

CONFIG = Training(
    updates=24, warmup=2, growth=0.25, divergence="adaptive", distillation_start=0.5, precision="float32", lr=0.05,
    evaluate_every=4, checkpoint_every=8,
)  # fmt: skip
BLOCK = {
    "before:blocks.0.down": {"method": "standard", "rate": {"schedule": "on_validation", "start": 0.3, "factor": 0.8}},
    "before:blocks.1.down": {"method": "gaussian", "rate": {"schedule": "linear", "start": 0.4, "end": 0.1}},
    "after:into": {"method": "standout_bias", "width": 16},
    "weights:out": {"method": "adaptive_prox", "lam": {"schedule": "linear", "start": 0.0, "end": 0.01}},
    "weights:blocks.1.up": {"method": "eta_trick", "lam": 1e-3},
}


def trainer(folder: Path, block: dict = BLOCK) -> Trainer:
    return Trainer(ToyTask(ToyData(), ToyModel(), 0, folder), CONFIG, folder, 0, block)


def rows(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "waiting")} for row in found]


def flat(state: object, path: str = "") -> dict[str, object]:
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {key: leaf for name, value in items for key, leaf in flat(value, f"{path}/{name}").items()}
    return {path: state.tolist() if isinstance(state, torch.Tensor) else state}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Trainer:
    made = trainer(tmp_path_factory.mktemp("dropout") / "run")
    made.fit()
    return made


def test_rates_are_in_the_log(finished):
    log = rows(finished.folder)
    linear = [row["rate/before:blocks.1.down"] for row in log]
    assert linear == pytest.approx([0.4 - 0.3 * update / 24 for update in range(24)])
    assert [row["rate/out.weight.lam"] for row in log] == pytest.approx([0.01 * update / 24 for update in range(24)])
    rate, best = 0.3, float("inf")
    for row in log:
        assert row["rate/before:blocks.0.down"] == pytest.approx(rate)
        if "dev" in row:  # the rate follows the first dev metric of the largest net
            loss = next(iter(row["dev"]["largest"].values()))
            rate = rate * 0.8 if loss < best else min(rate / 0.8, 0.5)
            best = min(loss, best)
    assert len({row["rate/before:blocks.0.down"] for row in log}) > 2


def test_a_resumed_run_is_the_undisturbed_one(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run")
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    newest.unlink()
    again = trainer(tmp_path / "run")
    again.resume()
    assert again.update == 16
    again.fit()
    states = [flat(newest_checkpoint(folder / "checkpoints")[0]) for folder in (finished.folder, tmp_path / "run")]
    assert states[0] == states[1]
    assert any(key.startswith("/rates/") for key in states[0])
    assert rows(tmp_path / "run") == rows(finished.folder)


def test_what_is_trained_with_dropout_extracts_to_ordinary_layers(finished):
    model = finished.average.module
    arch = SearchSpace.of(model).smallest()
    activate(model, arch)
    x = torch.randn(5, 8)
    subnet = extract(model, arch)
    assert torch.allclose(subnet.eval()(x), model.eval()(x), atol=1e-6)
    assert not [
        key for key in subnet.state_dict() if "parametrizations" in key or ("method" in key and "into" not in key)
    ]


def test_the_penalty_reaches_the_gradients(tmp_path):
    made = trainer(tmp_path, {"weights:out": {"method": "direct_penalty", "penalty": "lp", "lam": 0.5}})
    weight = made.model.out.parametrizations.weight.original
    archs = {"largest": made.space.largest(), "smallest": made.space.smallest()}
    batch = next(made.task.train_batches(0))
    gradients = []
    for lam in (0.5, 0.0):
        made.model.out.parametrizations.weight[0].lam = dropout.Rate(lam)
        made.model.eval()
        made.optimizer.zero_grad()
        accumulate_gradients(made.model, made.task.loss, batch, archs, made.divergence, 0.0)
        gradients.append(weight.grad.clone())
    # The loss of every net holds its own weights' penalty, and the gradient is the mean over nets.
    assert torch.allclose(gradients[0] - gradients[1], 0.5 * weight.sign(), atol=1e-5)


def test_a_wrong_block_stops_the_run_before_it_starts(tmp_path):
    with pytest.raises(TodmError, match="dropout 'hidden': the model has no such place; it has before:PATH"):
        trainer(tmp_path, {"hidden": {"method": "standard"}})
    assert not (tmp_path / "log.jsonl").exists()
