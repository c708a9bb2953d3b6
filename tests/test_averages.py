"""Averages of weights by their definitions, and the choice between them."""

import math

import pytest
import torch
from torch import nn

from todm.averages import keep_best, running_average, window_average


class Counter(nn.Module):
    """A weight, a float buffer and one of integers."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value))
        self.register_buffer("mean", torch.tensor(value))
        self.register_buffer("seen", torch.tensor(int(value)))

    def set(self, value: float) -> None:
        for tensor in self.state_dict().values():
            tensor.fill_(value)


def test_the_window_counts_every_update_alike_and_the_running_average_forgets() -> None:
    model = Counter()
    window, running = window_average(model), running_average(model, 0.5)
    for value in (1.0, 2.0, 6.0):
        model.set(value)
        window.update_parameters(model)
        running.update_parameters(model)
    assert window.module.weight.item() == window.module.mean.item() == pytest.approx(3.0)
    assert running.module.weight.item() == pytest.approx(0.5 * (0.5 * 1 + 0.5 * 2) + 0.5 * 6)
    assert window.module.seen.item() == 6
    other = window_average(Counter())
    other.load_state_dict(window.state_dict())
    model.set(7.0)
    other.update_parameters(model)
    assert other.module.weight.item() == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("errors", "best"),
    [((2.0, 1.0, 3.0), "b"), ((1.0, 1.0, 3.0), "a"), ((math.nan, 5.0, math.inf), "b"), ((3.0, 2.0, 1.0), "c")],
)
def test_the_least_error_is_kept(errors: tuple[float, ...], best: str) -> None:
    candidates = {name: Counter(value) for name, value in zip("abc", (10.0, 20.0, 30.0), strict=True)}
    by_value = dict(zip((10.0, 20.0, 30.0), errors, strict=True))
    kept = keep_best(candidates["a"], candidates, lambda model: by_value[model.weight.item()])
    assert kept == best
    assert candidates["a"].weight.item() == {"a": 10.0, "b": 20.0, "c": 30.0}[best]
