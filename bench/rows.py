"""What an update costs in every row of a comparison.

    python -m bench.rows [RECIPE [FILE.json]]       claim by default

Whole updates at places spread evenly over each row's own schedule, on the same batches, the rows taking turns: CPU
milliseconds of one thread, all in one process.
"""

import sys
from datetime import date
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from bench.run import cpu_model
from bench.step import BATCHES, FIRST, course
from todm.compare import load_comparison
from todm.files import write_json
from todm.recipe import load_recipe, merged
from todm.run import Run
from todm.trainer import Trainer


def costs(recipe: str) -> dict[str, float]:
    """Mean CPU milliseconds of an update over training, by row, the baseline first.

    Raises:
        ValueError: a row changes the data, so that its batches would be others.
    """
    _, home = load_recipe(recipe)
    plan = load_comparison(home)
    with TemporaryDirectory() as scratch:
        sides, batches = {}, None
        for row in dict.fromkeys([plan.baseline, *plan.rows]):
            if "data" in plan.rows[row]:
                raise ValueError(f"row {row!r} changes the data: its updates cannot be set against the others'")
            loaded, _ = load_recipe(recipe, merged(plan.settings, plan.rows[row]))
            task = Run(Path(scratch), loaded, home).task()
            sides[row] = Trainer(task, loaded.training, Path(scratch), loaded.seed, loaded.dropout)
            batches = batches or [batch for batch, _ in zip(task.train_batches(FIRST), range(BATCHES), strict=False)]
        return {row: fmean(places) for row, places in course(sides, batches or []).items()}


def main(recipe: str = "claim", out: str | None = None) -> None:
    """Print what each row costs beside the baseline, and write it where asked."""
    found = costs(recipe)
    baseline = next(iter(found.values()))
    for row, milliseconds in found.items():
        print(f"{row:<56}{milliseconds:6.1f} ms  {milliseconds / baseline:.2f}")
    if out is not None:
        write_json(out, {"recipe": recipe, "cpu": cpu_model(), "date": f"{date.today()}", "milliseconds": found})


if __name__ == "__main__":
    main(*sys.argv[1:])
