"""The paper's claim as a benchmark: subnets of one supernet against the same nets trained alone.

Both sides get the same number of updates on the same batches and choose their learning rate on the dev set, with the
first seed, from the same grid. Each training is a run folder, RUN/trainings/SIDE/lrRATE/seedN, and keeps what its nets
got wrong in mistakes.json: a benchmark that was killed goes on where it was.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from operator import mul
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass
from tqdm import tqdm

from todm.files import atomic_write, read_json
from todm.recipe import STRICT, Count, Positive, build, load_recipe, merged, read_yaml
from todm.recipes.claim.results import (
    MISTAKES,
    SUPERNET,
    TRAININGS,
    busy_seconds,
    chosen_rate,
    read_log,
    write_results,
)
from todm.recipes.claim.task import ClaimTask
from todm.run import Run
from todm.space import Arch, activate
from todm.trained import Trained


@dataclass(frozen=True, config=STRICT)
class Plan:
    """What plan.yaml holds."""

    sizes: dict[str, dict[str, int]]
    """Nets by name, the smallest first: a value for every axis, `hidden` the same in every block."""
    seeds: Count
    """Trainings of each side."""
    rates: list[Positive]
    """Learning rates tried with the first seed."""

    def arch(self, size: str) -> Arch:
        """The architecture of a size."""
        axes, blocks = dict(self.sizes[size]), max(net["depth"] for net in self.sizes.values())
        hidden = axes.pop("hidden")
        return axes | {f"hidden{block}": hidden for block in range(blocks)}


def benchmark(recipe: str, folder: Path, quick: bool, overrides: dict[str, Any]) -> dict[str, Any]:
    """Train what is missing, then write claim.json, claim.md and the charts in the run folder.

    Args:
        recipe: Name or path of the recipe, with plan.yaml beside it.
        folder: The run folder.
        quick: With the recipe's smallest setting, one rate and one seed: it only shows that everything runs.
        overrides: Changes to the recipe for all trainings.

    Raises:
        TodmError: what training raises.
    """
    loaded, home = load_recipe(recipe)
    plan = build(Plan, read_yaml(home / "plan.yaml"), str(home / "plan.yaml"))
    rates, seeds = (plan.rates[:1], 1) if quick else (plan.rates, plan.seeds)
    sides = [*plan.sizes, SUPERNET]
    first = overrides.get("seed", loaded.seed)
    with tqdm(total=len(sides) * (len(rates) + seeds - 1), desc="trainings") as bar:
        for seed in range(first, first + seeds):
            make_batches(recipe, folder, quick, merged(overrides, {"seed": seed}))
            for side in sides:
                for rate in rates if seed == first else [chosen_rate(folder / TRAININGS / side)]:
                    train(recipe, folder, plan, side, rate, quick, merged(overrides, {"seed": seed}))
                    bar.update()
    return write_results(folder, list(plan.sizes))


def make_batches(recipe: str, folder: Path, quick: bool, changes: dict[str, Any]) -> None:
    """Put the batches of a seed on disk before anything is trained and timed."""
    loaded, home = load_recipe(recipe, changes, "quick" if quick else "")
    task = Run(folder, loaded, home).task()
    assert isinstance(task, ClaimTask)
    batches = task.train_batches(0)
    for _ in tqdm(range(min(task.kept, loaded.training.updates)), desc="batches", leave=False):
        next(batches)


def train(recipe: str, folder: Path, plan: Plan, side: str, rate: float, quick: bool, changes: dict[str, Any]) -> None:
    """One training and what its nets get wrong, unless it is there."""
    from todm import verbs

    run = folder / TRAININGS / side / f"lr{rate:g}" / f"seed{changes['seed']}"
    if (run / MISTAKES).exists():
        return
    training: dict[str, Any] = {"lr": rate}
    if side != SUPERNET:
        training |= {"nets": "alone", "arch": plan.arch(side), "growing": "largest"}
        training |= {"students": None, "students_start": 0.0}
    verbs.train(recipe, str(run), resume="auto", quick=quick, overrides=merged(changes, {"training": training}))
    trained = Trained(Run.open(run))
    nets = {}
    for size in plan.sizes if side == SUPERNET else [side]:
        activate(trained.supernet, plan.arch(size))
        mistakes = {split: asdict(trained.task.mistakes(trained.supernet, split)) for split in ("dev", "test")}
        nets[size] = {"params": trained.exact(plan.arch(size))["params"], **mistakes}
    log, info = read_log(run), read_json(run / "run.json")
    told = {
        "nets": nets, "audio_hours": audio_hours(log, trained.task), "seconds": round(busy_seconds(log), 1),
        "updates": len(log), "cpu": info["machine"]["cpu"], "date": info["created"][:10],
    }  # fmt: skip
    atomic_write(run / MISTAKES, json.dumps(told))  # on one line: it is full of long lists


def audio_hours(rows: Sequence[dict[str, Any]], task: ClaimTask) -> float:
    """Hours of audio that went through a net."""
    nets = (sum(name.startswith("loss_") for name in row) for row in rows)
    return round(sum(map(mul, nets, task.seconds_of(len(rows)))) / 3600, 3)
