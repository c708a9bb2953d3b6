"""Which subnet fits a budget, from what a run has measured: no training, no export, no device needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from todm.errors import TodmError
from todm.search.budget import Budget, check_feasible, format_value
from todm.space import Arch


@dataclass(frozen=True)
class Option:
    """One subnet in one form, with what it scores and costs on the device."""

    arch: Arch
    dev: float
    """Error on the dev set, which options are compared by: every candidate has one."""
    score: float
    """Error of this form: on the test set where its file was evaluated, else on the dev set."""
    score_error: float
    """How far that may be off: 0 for an evaluated file, else the mean change that evaluated ones showed."""
    costs: dict[str, tuple[float, float]]
    """Metric -> (value, expected absolute error): 0 for what was measured."""
    runtime: str
    precision: str
    subnet: str = ""
    """Its name, where it has been exported."""
    measured: bool = False
    """Whether this very file was measured on the device."""

    def worst(self) -> dict[str, float]:
        """Every cost with its error on top."""
        return {name: value + error for name, (value, error) in self.costs.items()}


def advise(options: Sequence[Option], budget: Budget, metric: str) -> Option:
    """The most accurate option that keeps a budget even at the far end of its error bars.

    Of equal ones a measured one comes first, then the smaller.

    Args:
        metric: Name of the error, for budgets that limit it.

    Raises:
        TodmError: no option keeps the budget; says what is nearest.
    """
    if not options:
        raise TodmError("nothing was searched or measured yet, so there is nothing to advise; type: todm search RUN")

    narrow = f"{metric}_int8"
    if narrow in budget.limits:
        options = [option for option in options if option.precision == "int8"]
        if not options:
            raise TodmError(f"budget names {narrow}, but no int8 file was measured; type: todm export SUBNET")

    def known(option: Option) -> dict[str, float]:
        worst = option.score + option.score_error
        return {metric: worst, narrow: worst, **option.worst()}

    def rank(option: Option) -> tuple[float, bool, float, float]:
        return option.dev, not option.measured, option.score, option.costs["size_bytes"][0]

    broken = {id(option): budget.violations(known(option)) for option in options}
    inside = [option for option in options if not broken[id(option)]]
    if inside:
        return min(inside, key=rank)
    floor = {name: min(known(option)[name] for option in options) for name in budget.limits}
    check_feasible(budget, floor)
    nearest = min(options, key=lambda option: sum(broken[id(option)].values()))
    over = {name: format_value(name, known(nearest)[name], budget.units[name], True) for name in broken[id(nearest)]}
    needs = ", ".join(f"{name} {value}" for name, value in over.items())
    raise TodmError(f'no subnet keeps all of "{budget}"; the nearest, {nearest.subnet or nearest.arch}, needs {needs}')


def described(option: Option, metric: str) -> dict[str, Any]:
    """An option as data: what it is, its score and costs with their errors, and where these come from."""
    return {
        "subnet": option.subnet or None,
        "arch": option.arch,
        "runtime": option.runtime,
        "precision": option.precision,
        "basis": "measured" if option.measured else "predicted",
        metric: {"value": option.score, "error": option.score_error, "split": "test" if option.measured else "dev"},
        "costs": {name: {"value": value, "error": error} for name, (value, error) in option.costs.items()},
    }


def as_text(advice: dict[str, Any], metric: str) -> str:
    """The same for people."""
    score = advice[metric]
    lines = [
        f"{advice['subnet'] or advice['arch']} as {advice['runtime']} {advice['precision']}, "
        f"{advice['basis']} on {advice['device']}",
        f"{metric:16} {score['value']:.2f}{_bar(score['error'], '.2f')} on the {score['split']} set",
    ]
    for name, cost in advice["costs"].items():
        unit = "B" if name.endswith("_bytes") else "ms" if name.endswith("_ms") else ""
        short = name.removesuffix("_bytes").removesuffix("_ms")
        lines.append(f"{short:16} {cost['value']:.4g}{_bar(cost['error'], '.2g')} {unit}")
    if advice["basis"] == "predicted":
        lines.append("not exported yet; the same budget to `todm search` exports it and measures the file")
    return "\n".join(lines)


def _bar(error: float, form: str) -> str:
    return f" ± {error:{form}}" if error else ""
