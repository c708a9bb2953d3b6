"""All scheduled rates of a model in one place: stepped by the trainer, saved in its checkpoints, drawn in its log."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from todm.dropout.schedule import Constant, OnValidation, Schedule, as_schedule
from todm.dropout.site import Site
from todm.errors import TodmError

RateLike = float | Schedule | Mapping[str, Any]
"""What any `rate` argument takes: a number, a schedule, or a recipe's description of one."""


class Rate:
    """A rate of a dropout method: its schedule and its value now, which the method reads at every forward pass.

    A method keeps it as an ordinary attribute; that is how `Rates` finds it.

    Args:
        value: A number or a schedule.
    """

    def __init__(self, value: RateLike) -> None:
        self.schedule = as_schedule(value)
        self.now = self.schedule.rate(0)

    def fill(self, **facts: int) -> None:
        """Give the schedule what it was made without: `total` updates, or the place of its layer."""
        self.schedule = self.schedule.filled(**facts)

    def step(self, update: int) -> None:
        """Take the value of update `update`, counted from 0."""
        self.now = self.schedule.rate(update)

    def __float__(self) -> float:
        return self.now

    def __repr__(self) -> str:
        return f"{self.now:g}" if isinstance(self.schedule, Constant) else repr(self.schedule)


class Probability(Rate):
    """A rate that is a drop probability.

    Raises:
        ValueError: it starts outside [0, 1).
        TodmError: it leaves [0, 1] later.
    """

    def __init__(self, value: RateLike) -> None:
        super().__init__(value)
        if not 0 <= self.now < 1:
            raise ValueError(f"dropout rate must be in [0, 1), got {self.now}")

    def step(self, update: int) -> None:
        super().step(update)
        if not 0 <= self.now <= 1:
            raise TodmError(f"dropout rate must be in [0, 1], but {self.schedule} gives {self.now} at update {update}")


def _rates(model: nn.Module) -> Iterator[tuple[str, str, Rate]]:
    """(path of the module, name of the attribute, rate) of every rate in a model."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Rate):
                yield path, name, value


class Rates:
    """Every rate of a model.

    Args:
        model: With its dropout methods installed.
        total: Updates of the whole training, for schedules that were given none.
    """

    def __init__(self, model: nn.Module, total: int | None = None) -> None:
        self._rates: dict[str, Rate] = {}
        self._shown: dict[str, Rate] = {}
        sites = {f"{path}.method": module.name for path, module in model.named_modules() if isinstance(module, Site)}
        for path, attribute, rate in _rates(model):
            if total is not None:
                rate.fill(total=total)
            self._rates[f"{path}.{attribute}"] = rate
            # Sites of one name share a curve unless their schedules differ.
            suffix = "" if attribute == "rate" else f".{attribute}"
            own = path.removesuffix(".method").replace("parametrizations.weight.0", "weight")
            shown = self._shown.setdefault(sites.get(path, own) + suffix, rate)
            if shown.schedule != rate.schedule:
                self._shown[own + suffix] = rate

    def step(self, update: int) -> None:
        """Set every rate to its value during update `update`, counted from 0."""
        for rate in self._rates.values():
            rate.step(update)

    def observe(self, loss: float) -> None:
        """Tell the schedules that follow validation a new loss on the dev set; it acts from the next step on."""
        # By identity: sites may share one schedule, which must hear of a loss once.
        schedules = {id(rate.schedule): rate.schedule for rate in self._rates.values()}
        for schedule in schedules.values():
            if isinstance(schedule, OnValidation):
                schedule.update(loss)

    def values(self) -> dict[str, float]:
        """The rate of each site now, by the site's name (by module path where the layers of one name differ)."""
        return {name: rate.now for name, rate in self._shown.items()}

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs beside the update: the states of schedules that have one."""
        return {
            name: rate.schedule.state_dict()
            for name, rate in self._rates.items()
            if isinstance(rate.schedule, OnValidation)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        for name, saved in state.items():
            schedule = self._rates[name].schedule
            assert isinstance(schedule, OnValidation)
            schedule.load_state_dict(saved)
