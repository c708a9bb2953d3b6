"""Training on a toy: what is trained when, what is written, and that no interruption changes the result."""

import math
import os
import random
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_folder import equal, log_of, weights
from toy_task import ToyData, ToyModel, ToyTask

from todm import activate
from todm.checkpoint import list_checkpoints, newest_checkpoint
from todm.errors import TodmError
from todm.recipe import Training
from todm.trainer import PATIENCE, Trainer, is_trained

CONFIG = Training(
    updates=120, warmup=10, growth=0.25, divergence="adaptive", distillation_start=0.5, average=0.9,
    precision="float32", lr=0.05, evaluate_every=50, checkpoint_every=20,
)  # fmt: skip


def trainer(folder: Path, config: Training = CONFIG, seed: int = 0, **data) -> Trainer:
    return Trainer(ToyTask(ToyData(**data), ToyModel(), seed, folder), config, folder, seed)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Trainer:
    made = trainer(tmp_path_factory.mktemp("trained") / "run")
    made.fit()
    return made


def test_every_subnet_learns(finished, tmp_path):
    space, rng = finished.space, random.Random(0)
    fresh = trainer(tmp_path)
    for arch in (space.smallest(), space.largest(), *(space.sample(rng) for _ in range(8))):
        error = []
        for model in (finished.average.module, fresh.model):
            activate(model, arch)
            error.append(finished.task.evaluate(model.eval(), "test")["error"])
        assert error[0] < 25 < 50 < error[1]
    assert finished.evaluate("dev") == log_of(finished.folder)[-1]["dev"]
    assert finished.evaluate("test") != finished.evaluate("dev")


def test_the_log_tells_the_whole_story(finished):
    rows = log_of(finished.folder)
    assert [row["update"] for row in rows] == list(range(1, 121))
    growing, apart, taught = rows[:30], rows[30:60], rows[61:]
    assert all({k for k in row if k.startswith("loss")} == {"loss_largest"} for row in growing)
    nets = {"loss_largest", "loss_smallest", "loss_random_0"}
    assert all({k for k in row if k.startswith("loss")} == nets for row in apart + taught)
    assert not any("divergence" in row for row in growing + apart)
    assert all(row["divergence"] > 0 for row in taught)
    assert [row["update"] for row in rows if "dev" in row] == [50, 100, 120]
    assert set(rows[-1]["dev"]) == {"largest", "smallest"}
    for index, row in enumerate(rows):  # Eden, in closed form
        warm = 0.5 + 0.5 * min(1, index / 10)
        assert row["lr"] == pytest.approx(0.05 * ((index / 500) ** 2 + 1) ** -0.25 * warm)
        assert row["skipped"] == 0
    assert is_trained(finished.folder, CONFIG)
    assert not is_trained(finished.folder, replace(CONFIG, updates=121))
    assert [path.name for path in list_checkpoints(finished.folder / "checkpoints")] == [
        "update-0000100.safetensors", "update-0000120.safetensors",
    ]  # fmt: skip
    assert list((finished.folder / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.parametrize(("optimizer", "schedule"), [("adamw", "cosine"), ("sgd", "constant"), ("scaled_adam", "eden")])
def test_one_net_can_be_trained_alone_by_any_optimiser(tmp_path, optimizer, schedule):
    config = replace(
        CONFIG, updates=60, nets="alone", arch="smallest", growth=0.0, optimizer=optimizer, lr_schedule=schedule,
        lr=None, warmup=4,
    )  # fmt: skip
    made = trainer(tmp_path, config, nan=[5])
    before = {name: p.clone() for name, p in made.model.state_dict().items()}
    made.fit()
    rows = log_of(tmp_path)
    assert {key for row in rows for key in row if key.startswith("loss")} == {"loss_alone"}
    assert [row["update"] - 1 for row in rows if row["skipped"]] == [5]
    assert rows[-1]["loss_alone"] < rows[0]["loss_alone"]
    assert set(rows[-1]["dev"]) == {"alone"}
    moved = {name for name, p in made.model.state_dict().items() if not torch.equal(p, before[name])}
    assert not any(name.startswith(("blocks.1.", "blocks.2.")) for name in moved)
    if schedule == "cosine":
        warm = [0.5 + 0.5 * min(1, u / 4) for u in range(60)]
        rates = [0.001 * w * (0.5 + 0.5 * math.cos(math.pi * u / 60)) for u, w in enumerate(warm)]
        assert [row["lr"] for row in rows] == pytest.approx(rates)


def test_random_nets_replace_the_sandwich(tmp_path):
    made = trainer(tmp_path, replace(CONFIG, updates=4, nets="random", growth=0.0))
    made.fit()
    logged = {key for row in log_of(tmp_path) for key in row if key.startswith(("loss", "div"))}
    assert logged == {"loss_random_0", "loss_random_1", "loss_random_2"}


def test_an_architecture_outside_the_space_is_refused(tmp_path):
    with pytest.raises(TodmError, match=r"training.arch: .*'depth' is 9, but must be one of"):
        trainer(tmp_path, replace(CONFIG, nets="alone", arch={"depth": 9}, growth=0.0))


@pytest.mark.parametrize(
    ("taught", "logged"), [({}, False), ({"divergence": "kl"}, True), ({"divergence": "adaptive"}, True)]
)
def test_distillation_is_what_was_asked_for(tmp_path, taught, logged):
    start = {"distillation_start": 0.0} if taught else {}
    config = Training(updates=10, growth=0.0, average=0.0, precision="float32", lr=0.05, **taught, **start)
    made = trainer(tmp_path, config)
    made.fit()
    rows = log_of(tmp_path)
    assert "divergence" not in rows[0]  # the ramp begins at nothing
    assert all(("divergence" in row) == logged for row in rows[1:])
    assert equal(made.average.module.state_dict(), made.model.state_dict())


def test_bfloat16_trains_float32_weights(tmp_path):
    made = trainer(tmp_path, replace(CONFIG, updates=40, precision="bfloat16"))
    made.fit()
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}
    rows = log_of(tmp_path)
    assert rows[-1]["loss_largest"] < 0.8 * rows[0]["loss_largest"]
    trainer(tmp_path / "float32", replace(CONFIG, updates=40)).fit()
    assert rows[0]["loss_largest"] == pytest.approx(log_of(tmp_path / "float32")[0]["loss_largest"], rel=0.02)
    assert rows[0]["loss_largest"] != log_of(tmp_path / "float32")[0]["loss_largest"]


def test_the_seed_decides_everything(finished, tmp_path):
    config = replace(CONFIG, checkpoint_every=120)
    for seed, same in ((0, True), (1, False)):
        folder = tmp_path / str(seed)
        torch.manual_seed(99)
        trainer(folder, config, seed).fit()
        assert equal(weights(folder), weights(finished.folder)) is same
    assert log_of(tmp_path / "0") == log_of(finished.folder)


@pytest.mark.parametrize("stop", [7, 33, 70])
def test_a_resumed_run_is_an_undisturbed_one(finished, tmp_path, stop):
    """Stopped by an error after the log was written further than the checkpoint; before the first one, too."""
    made = trainer(tmp_path)
    step = made._step

    def failing(batch):
        if made.update == stop:
            raise OSError("power cut")
        return step(batch)

    made._step = failing
    with pytest.raises(OSError, match="power cut"):
        made.fit()
    assert [row["update"] for row in log_of(tmp_path)] == list(range(1, stop + 1))
    again = trainer(tmp_path)
    if stop > 20:
        assert again.resume() == []
        assert again.update == stop // 20 * 20
    again.fit()
    assert equal(weights(tmp_path), weights(finished.folder))
    assert log_of(tmp_path) == log_of(finished.folder)


def test_a_damaged_checkpoint_costs_only_the_time_since_the_one_before(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run")
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:5000])
    again = trainer(tmp_path / "run")
    (warning,) = again.resume()
    assert "update-0000120.safetensors is damaged" in warning
    assert again.update == 100
    again.fit()
    assert equal(weights(tmp_path / "run"), weights(finished.folder))
    assert log_of(tmp_path / "run") == log_of(finished.folder)


def test_other_settings_are_refused(finished):
    with pytest.raises(TodmError, match="was trained with other settings; choose another folder with --out"):
        trainer(finished.folder, replace(CONFIG, lr=0.01)).resume()


def test_of_three_averages_the_one_that_errs_least_on_dev_is_deployed(tmp_path):
    made = trainer(tmp_path, replace(CONFIG, updates=40, window=0.5))
    found = {}
    evaluate = made.task.evaluate

    def noted(model, split):
        metrics = evaluate(model, split)
        found[id(model)] = found.get(id(model), 0.0) + metrics["error"]
        return metrics

    made.task.evaluate = noted
    kept = {}
    candidates = {"running": made.average.module, "window": made.window.module, "last": made.model}
    keep = made._keep_best_average

    def choose(window):
        kept.update({name: {k: v.clone() for k, v in m.state_dict().items()} for name, m in candidates.items()})
        return keep(window)

    made._keep_best_average = choose
    made.fit()
    assert made.window.n_averaged == 20
    errors = {name: found[id(model)] for name, model in candidates.items() if name != "running"}
    assert all(not equal(kept["running"], kept[name]) for name in ("window", "last"))
    name = log_of(tmp_path)[-1]["average"]
    assert name in candidates
    assert equal(made.average.module.state_dict(), kept[name])
    deployed = sum(metrics["error"] for metrics in made.evaluate().values())
    assert deployed <= min(errors.values())
    state, _ = newest_checkpoint(tmp_path / "checkpoints")
    assert equal(
        {k.removeprefix("module."): v for k, v in state["average"].items() if k.startswith("module.")}, kept[name]
    )


def test_a_batch_that_is_not_finite_is_skipped_and_counted(tmp_path):
    made = trainer(tmp_path, nan=[3, 40, 41])
    made.fit()
    rows = log_of(tmp_path)
    assert [row["update"] - 1 for row in rows if row["skipped"]] == [3, 40, 41]
    assert all(value.isfinite().all() for value in weights(tmp_path).values())
    assert made.evaluate()["smallest"]["error"] < 25


def test_a_run_that_has_diverged_stops(tmp_path):
    made = trainer(tmp_path, nan=list(range(30, 30 + PATIENCE)))
    with pytest.raises(TodmError, match=f"{PATIENCE} updates in a row without a finite gradient; lower --training.lr"):
        made.fit()
    assert made.update == 30 + PATIENCE
    assert made.model.into.weight.isfinite().all()
    often, config = [*range(30, 29 + PATIENCE), *range(60, 70)], replace(CONFIG, updates=75)
    trainer(tmp_path / "never as many in a row", config, nan=often).fit()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), True),
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (FileNotFoundError(2, "No such file or directory"), True),  # its socket
        (EOFError(), True),
        (FileNotFoundError(2, "No such file or directory", "speech.wav"), False),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_a_dead_loader_is_told_however_it_shows(tmp_path, monkeypatch, error, told):
    def batches(*_):
        yield from ()
        raise error

    ours = trainer(tmp_path)
    monkeypatch.setattr(ours.task, "train_batches", batches)
    with pytest.raises(TodmError if told else type(error)) as caught:
        ours.fit()
    assert ("a process that prepares batches has died" in str(caught.value)) == told


@pytest.mark.parametrize("moment", ["batch", "update"])
def test_an_interrupt_saves_a_whole_update(finished, tmp_path, capsys, moment):
    """Ctrl-C while a batch is made, or when the weights have moved but their average has not."""
    made = trainer(tmp_path, interrupt=50 if moment == "batch" else -1)
    average = made.average.update_parameters

    def interrupted(model):
        if moment == "update" and made.update == 50:
            os.kill(os.getpid(), signal.SIGINT)
        average(model)

    made.average.update_parameters = interrupted
    with pytest.raises(KeyboardInterrupt):
        made.fit()
    stopped = int(re.search(r"stopped at update (\d+); go on with --resume auto", capsys.readouterr().err)[1])
    assert stopped in (50, 51)
    assert newest_checkpoint(tmp_path / "checkpoints")[0]["update"] == stopped
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = trainer(tmp_path)
    again.resume()
    again.fit()
    assert equal(weights(tmp_path), weights(finished.folder))
