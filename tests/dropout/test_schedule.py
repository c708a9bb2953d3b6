"""Every schedule equals its formula at its ends and between, and after a resume."""

import math
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from todm import dropout
from todm.dropout import Rates, Site
from todm.dropout.schedule import (
    SCHEDULES,
    AntiCurriculum,
    Constant,
    Cosine,
    Curriculum,
    Early,
    Exponential,
    FrontToBack,
    Late,
    Linear,
    OnValidation,
    Piecewise,
    Switch,
    as_schedule,
)
from todm.errors import TodmError

GOLDEN = np.load(Path(__file__).parent.parent / "data" / "extras.npz", allow_pickle=False)


@pytest.mark.parametrize(("kind", "key"), [(Curriculum, "curriculum"), (AntiCurriculum, "anti_curriculum")])
def test_curricula_are_the_published_ones(kind, key):
    for i, t in enumerate(GOLDEN["curriculum.t"]):
        for j, keep in enumerate(GOLDEN["curriculum.theta_bar"]):
            for k, gamma in enumerate(GOLDEN["curriculum.gamma"]):
                rate = kind(keep=float(keep), gamma=float(gamma)).rate(int(t))
                assert rate == pytest.approx(1 - GOLDEN[f"{key}.keep"][i, j, k], abs=1e-12)


def test_a_curriculum_s_speed_follows_from_the_length_of_training():
    for i, total in enumerate(GOLDEN["curriculum.total_updates"].tolist()):
        for j, keep in enumerate(GOLDEN["curriculum.theta_bar"].tolist()):
            made = Curriculum(keep).filled(total=total)
            assert made.rate(total) == pytest.approx(1 - GOLDEN["curriculum.keep_at_total"][i, j], abs=1e-12)
            same = Curriculum(keep, float(GOLDEN["curriculum.gamma_from_total"][i]))
            assert made.rate(total // 3) == pytest.approx(same.rate(total // 3), abs=1e-12)


def test_a_switch_is_the_published_one():
    at = int(GOLDEN["switch.switch_epoch"])
    for i, epoch in enumerate(GOLDEN["switch.epoch"].tolist()):
        for j, keep in enumerate(GOLDEN["curriculum.theta_bar"].tolist()):
            assert Switch(keep, at).rate(epoch) == pytest.approx(1 - GOLDEN["switch.keep"][i, j], abs=1e-12)


def test_front_to_back_is_the_published_annealing():
    period, start = int(GOLDEN["anneal.period"]), float(GOLDEN["anneal.p_start"])
    for i, iteration in enumerate(GOLDEN["anneal.iteration"].tolist()):
        row = [
            FrontToBack(start, period=period, layer=n).rate(iteration) for n in range(int(GOLDEN["anneal.n_layers"]))
        ]
        np.testing.assert_allclose(row, GOLDEN["anneal.p"][i], atol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(0.3), {0: 0.3, 7: 0.3, 100: 0.3}),
        (Linear(0.4, 0.1, 100), {0: 0.4, 50: 0.25, 100: 0.1, 200: 0.1}),
        (Linear(0.2).filled(total=10), {0: 0.2, 5: 0.1, 10: 0.0, 11: 0.0}),
        (Exponential(0.4, 0.1, 100), {0: 0.4, 50: 0.2, 100: 0.1, 200: 0.1}),
        (Cosine(0.4, 0.1, 100), {0: 0.4, 25: 0.25 + 0.15 * math.sqrt(0.5), 50: 0.25, 100: 0.1, 200: 0.1}),
        (Switch(0.7).filled(total=10), {0: 0.0, 4: 0.0, 5: 0.3, 10: 0.3}),
        (Switch(0.7, 0), {0: 0.3, 1: 0.3}),
        (Piecewise(((0, 0.3), (10, 0.1), (20, 0.2))), {0: 0.3, 5: 0.2, 10: 0.1, 15: 0.15, 20: 0.2, 30: 0.2}),
        (Piecewise([[5, 0.3]]), {0: 0.3, 9: 0.3}),
        (Early(0.3, 10), {0: 0.3, 5: 0.15, 10: 0.0, 99: 0.0}),
        (Early(0.3).filled(total=60), {0: 0.3, 5: 0.15, 10: 0.0}),
        (Early(0.3, 0), {0: 0.0, 1: 0.0}),
        (Late(0.3, 10), {0: 0.0, 9: 0.0, 10: 0.3, 99: 0.3}),
        (Late(0.3).filled(total=60), {0: 0.0, 9: 0.0, 10: 0.3}),
        (Late(0.3, 0), {0: 0.3}),
        (FrontToBack(0.3).filled(layer=1, layers=3, total=400), {0: 0.3, 199: 0.3, 200: 1.0, 400: 1.0}),
    ],
)
def test_formulas(schedule, values):
    assert {step: schedule.rate(step) for step in values} == {k: pytest.approx(v, abs=1e-12) for k, v in values.items()}


def test_a_rate_on_validation_falls_with_every_new_best_and_rises_otherwise():
    schedule = OnValidation(start=0.2, factor=0.5, low=0.05, high=0.3)
    seen = [schedule.rate(0)]
    for loss in (3.0, 2.0, 1.0, 1.0, 1.5, float("nan"), 0.9):
        schedule.update(loss)
        seen.append(schedule.rate(0))
    assert seen == pytest.approx([0.2, 0.1, 0.05, 0.05, 0.1, 0.2, 0.3, 0.15])


def test_a_saved_state_goes_on_as_if_nothing_had_happened():
    first, second = OnValidation(0.2), OnValidation(0.2)
    for loss in (3.0, 2.0, 2.5):
        first.update(loss)
    second.load_state_dict(first.state_dict())
    for loss in (2.2, 1.9, 1.8):
        first.update(loss)
        second.update(loss)
        assert first.rate(9) == second.rate(9)


def sites(**block):
    model = nn.ModuleDict({"a": Site("one"), "b": Site("one"), "c": Site("two")})
    dropout.install(model, {name: {"method": "standard", "rate": rate} for name, rate in block.items()})
    return model


EXAMPLES = {
    "constant": {"value": 0.2}, "linear": {"start": 0.2}, "exponential": {"start": 0.2, "end": 0.1},
    "cosine": {"start": 0.3}, "curriculum": {}, "anti_curriculum": {}, "switch": {}, "piecewise": {"points": [[0, 0.3], [9, 0]]},
    "early": {"start": 0.2}, "late": {"value": 0.2}, "front_to_back": {"end": 0.5}, "on_validation": {},
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_goes_on_after_a_resume(name):
    first, second = (Rates(sites(one={"schedule": name, **EXAMPLES[name]}), total=40) for _ in range(2))
    history = []
    for update in range(40):
        first.step(update)
        if update == 20:
            second.load_state_dict(first.state_dict())
        if update >= 20:
            second.step(update)
            assert second.values() == first.values()
        for loss in [float(abs(update - 25))] if update % 5 == 4 else []:
            first.observe(loss)
            if update >= 20:
                second.observe(loss)
        history.append(first.values()["one"])
    assert len(set(history)) == 1 if name == "constant" else len(set(history)) > 1


def test_one_schedule_object_at_many_sites_hears_a_loss_once():
    shared = OnValidation(0.2, factor=0.5)
    rates = Rates(sites(one=shared, two=shared))
    rates.observe(1.0)
    rates.step(1)
    assert rates.values() == {"one": 0.1, "two": 0.1}


def test_what_a_schedule_lacks_is_said_when_it_is_needed():
    rates = Rates(sites(one=Linear(0.2)))
    rates.step(0)
    with pytest.raises(TodmError, match="a schedule needs total: give it"):
        rates.step(1)
    rates = Rates(sites(one=Linear(0.9, 1.9)), total=10)
    with pytest.raises(TodmError, match=r"must be in \[0, 1\], but Linear.* gives 1.\d+ at update 5"):
        rates.step(5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"schedule": "exponential", "start": 0.2, "end": 0.0}, "positive ends"),
        ({"schedule": "piecewise", "points": []}, "rising order"),
        ({"schedule": "piecewise", "points": [[3, 0.1], [1, 0.2]]}, "rising order"),
        ({"schedule": "on_validation", "start": 0.9}, "low <= start <= high"),
        ({"schedule": "linear", "start": 0.2, "length": 3}, "no argument 'length'; it has start, end, total"),
        (True, "a rate is a number or"),
        (None, "a rate is a number or"),
    ],
)
def test_a_schedule_that_is_none_is_one_clear_line(value, message):
    with pytest.raises(TodmError, match=message):
        as_schedule(value)
