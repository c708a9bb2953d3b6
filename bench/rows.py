"""What an update costs in every row of a comparison.

    python -m bench.rows RECIPE [FILE.json]

Whole updates at places spread evenly over each row's own schedule, on the same batches, the rows taking turns: CPU
milliseconds of one thread, all in one process.
"""

import sys
from collections.abc import Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from bench.run import cpu_model
from bench.step import BATCHES, FIRST, course
from todm.compare import load_comparison
from todm.errors import TodmError, script
from todm.files import write_json
from todm.recipe import load_recipe, merged
from todm.run import Run
from todm.trainer import Trainer


def costs(recipe: str) -> dict[str, float]:
    """Mean CPU milliseconds of an update over training, by row, the baseline first.

    Raises:
        TodmError: a row changes the data, so that its batches would be others.
    """
    _, home = load_recipe(recipe)
    plan = load_comparison(home)
    sides: dict[str, Trainer] = {}
    with TemporaryDirectory() as scratch:
        for row in dict.fromkeys([plan.baseline, *plan.rows]):
            if "data" in plan.rows[row]:
                raise TodmError(f"row {row!r} changes the data: its updates cannot be set against the others'")
            loaded, _ = load_recipe(recipe, merged(plan.settings, plan.rows[row]))
            task = Run(Path(scratch), loaded, home).task()
            sides[row] = Trainer(task, loaded.training, Path(scratch), loaded.seed, loaded.dropout)
        batches = list(islice(sides[plan.baseline].task.train_batches(FIRST), BATCHES))
        return {row: fmean(places) for row, places in course(sides, batches).items()}


@script
def main(arguments: Sequence[str]) -> None:
    """Print what each row costs beside the baseline, and write it where asked."""
    if len(arguments) not in (1, 2):
        raise TodmError("type: python -m bench.rows RECIPE [FILE.json]")
    recipe, *out = arguments
    found = costs(recipe)
    baseline = next(iter(found.values()))
    for row, milliseconds in found.items():
        print(f"{row:<56}{milliseconds:6.1f} ms  {milliseconds / baseline:.2f}")
    for path in out:
        write_json(path, {"recipe": recipe, "cpu": cpu_model(), "date": f"{date.today()}", "milliseconds": found})


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
