"""The comparison itself: what it must notice."""

import numpy as np
import pytest
import torch
from torch import nn

from todm.export import compare, record
from todm.program import Method, Methods, Program, eager


class Sum(nn.Module):
    """Running sum: x (1,), state (1,) -> the sum, twice."""

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + state, x + state


@pytest.fixture
def running() -> Program:
    inputs = {"x": torch.ones(1), "state": torch.zeros(1)}
    return Program((Method("add", "model", Sum().eval(), inputs, ("y", "next"), {"next": "state"}),))


def two_streams(methods: Methods) -> None:
    for _ in range(2):
        state = np.zeros(1, np.float32)
        for _ in range(5):
            _, state = methods["add"](np.ones(1, np.float32), state)


def test_errors_add_up_along_a_stream_and_end_with_it(running: Program) -> None:
    def leaky(x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, ...]:
        return x + state + np.float32(0.25), x + state + np.float32(0.25)

    (row,) = compare(running, eager(running), {"add": leaky}, record(eager(running), two_streams))
    assert row == {"method": "add", "calls": 10, "max_abs": 1.25, "max_rel": 0.25}


def test_equal_is_zero_and_an_uncalled_method_has_no_row(running: Program) -> None:
    (row,) = compare(running, eager(running), eager(running), record(eager(running), two_streams))
    assert (row["max_abs"], row["max_rel"]) == (0.0, 0.0)
    assert compare(running, eager(running), eager(running), []) == []


def test_nan_does_not_pass_for_equal(running: Program) -> None:
    def broken(x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, ...]:
        return x * np.nan, state

    (row,) = compare(running, eager(running), {"add": broken}, record(eager(running), two_streams))
    assert row["max_abs"] > 1e38
    assert np.isfinite(row["max_rel"])


def test_record_keeps_the_first_calls_as_they_were(running: Program) -> None:
    calls = record(eager(running), two_streams, limit=7)
    assert [name for name, _ in calls] == ["add"] * 7
    assert [float(state[0]) for _, (_, state) in calls] == [0, 1, 2, 3, 4, 0, 1]
