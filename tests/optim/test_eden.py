"""Eden against the golden rates, and across a resume."""

from pathlib import Path

import numpy as np
import pytest
import torch

from todm.errors import TodmError
from todm.optim import Eden, ScaledAdam

GOLDEN = dict(np.load(Path(__file__).parents[1] / "data" / "eden.npz", allow_pickle=False))


def optimizer() -> ScaledAdam:
    return ScaledAdam([{"params": [torch.zeros(2, requires_grad=True)], "lr": float(lr)} for lr in GOLDEN["base_lrs"]])


def rates_of(eden: Eden) -> list[float]:
    return [group["lr"] for group in eden.optimizer.param_groups]


def of_run() -> Eden:
    return Eden(
        optimizer(),
        *(float(GOLDEN[f"run.{key}"]) for key in ("lr_batches", "lr_epochs", "warmup_batches", "warmup_start")),
    )


def test_rates_of_every_batch_and_epoch() -> None:
    lengths = float(GOLDEN["lr_batches"]), float(GOLDEN["lr_epochs"])
    rates = []
    for warmup_batches, warmup_start in zip(GOLDEN["warmup_batches"], GOLDEN["warmup_start"], strict=True):
        eden = Eden(optimizer(), *lengths, float(warmup_batches), float(warmup_start))
        for batch in GOLDEN["batches"]:
            for epoch in GOLDEN["epochs"]:
                eden.step_epoch(float(epoch))
                eden.step_batch(int(batch))
                rates.append(rates_of(eden))
    np.testing.assert_allclose(rates, GOLDEN["eden"].reshape(-1, 2), rtol=1e-14)


def test_a_run_in_calling_order() -> None:
    eden = of_run()
    for event, rates in zip(GOLDEN["run.events"], GOLDEN["run.lrs"], strict=True):
        name, _, argument = str(event).rstrip(")").partition("(")
        if name != "construction":
            getattr(eden, name)(*([float(argument)] if argument else []))
        np.testing.assert_allclose(rates_of(eden), rates, rtol=1e-14, err_msg=str(event))


def test_resume_goes_on_from_the_state_and_keeps_the_base_rates() -> None:
    first = of_run()
    first.step_epoch(int(GOLDEN["resume.state_epoch"]))
    first.step_batch(int(GOLDEN["resume.state_batch"]))
    resumed = of_run()
    resumed.optimizer.load_state_dict(first.optimizer.state_dict())
    assert rates_of(resumed) == rates_of(first)
    late = Eden(resumed.optimizer, first.lr_batches, first.lr_epochs, first.warmup_batches, first.warmup_start)
    late.load_state_dict(first.state_dict())
    for rates in GOLDEN["resume.lrs"]:
        late.step_batch()
        np.testing.assert_allclose(rates_of(late), rates, rtol=1e-14)


def test_lengths_that_are_not_positive_are_named() -> None:
    with pytest.raises(TodmError, match="lr_batches"):
        Eden(optimizer(), 0, 3.5)


def test_no_warm_up_at_all() -> None:
    eden = Eden(optimizer(), 100, 10, warmup_batches=0)
    eden.step_batch(0)
    np.testing.assert_array_equal(rates_of(eden), GOLDEN["base_lrs"])
