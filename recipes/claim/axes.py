"""Further axes of the search space: whether the front of a family gets better when more may be chosen.

    python -m todm.recipes.claim.axes ABLATION

ABLATION is the folder of `todm compare claim`; its rows `AXES` are families that differ in what may be chosen. For each
budget on parameters the net of the least dev error within it is taken, out of architectures spread over the space, and
its error on the test set counts: what somebody who searches would get. Writes ABLATION/axes.csv.
"""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from todm.compare import RESULT
from todm.errors import TodmError, script
from todm.files import atomic_write
from todm.recipes.claim import ablation
from todm.run import Run
from todm.search.spread import spread
from todm.space import Arch, activate
from todm.trained import Trained

AXES = ("baseline", "heads chosen too", "states chosen too", "width chosen too")
"""Rows of compare.yaml, the baseline's own space first."""
ARCHITECTURES = 32
"""Evaluated of each family, its ends among them."""
BUDGETS = np.geomspace(15_000, 100_000, 9)
"""Parameters, at most."""
PARTS = ("all", "small", "middle", "large")
"""Of the budgets: all of them, and thirds."""


def measure(run: Path) -> dict[str, float]:
    """Mean test error (percent) under all budgets, and under the small, middle and large third of them: `PARTS`."""
    trained = Trained(Run.open(run))

    def error(arch: Arch, split: str) -> float:
        activate(trained.supernet, arch)
        return float(trained.task.evaluate(trained.supernet, split)["wer"])

    archs = spread(trained.space, ARCHITECTURES, trained.recipe.seed)
    params = [trained.exact(arch)["params"] for arch in archs]
    dev = [error(arch, "dev") for arch in tqdm(archs, run.parent.name)]
    smallest = int(np.argmin(params))
    within = [[net for net, size in enumerate(params) if size <= budget] or [smallest] for budget in BUDGETS]
    found = [min(nets, key=dev.__getitem__) for nets in within]
    test = {net: error(archs[net], "test") for net in set(found)}
    errors = np.array([test[net] for net in found])
    return {name: float(part.mean()) for name, part in zip(PARTS, (errors, *np.split(errors, 3)), strict=True)}


def compare(folder: Path) -> str:
    """Measure every training of the rows; returns the table, with differences from the baseline's space.

    Raises:
        TodmError: a row has no finished training.
    """
    runs = [(row, path.parent) for row in AXES for path in sorted((folder / row).glob(f"seed*/{RESULT}"))]
    if {row for row, _ in runs} != set(AXES):
        raise TodmError(f"{folder} lacks trainings of {', '.join(AXES)}; type: todm compare claim --out {folder}")
    found = [{"row": row, "seed": int(run.name.removeprefix("seed")), **measure(run)} for row, run in runs]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return as_markdown(atomic_write(folder / "axes.csv", text.getvalue()))


def as_markdown(path: Path) -> str:
    """Table of axes.csv: of each part of the budgets the error, and its difference from the baseline's."""
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    results = [ablation.result(line["row"], part, line["seed"], line[part]) for line in lines for part in PARTS]
    return ablation.as_table(results, PARTS)


@script
def main(arguments: Sequence[str]) -> None:
    """ABLATION"""
    if len(arguments) != 1:
        raise TodmError("type: python -m todm.recipes.claim.axes ABLATION")
    print(compare(Path(arguments[0])))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
