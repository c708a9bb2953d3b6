"""Subnets that were never sampled much: the whole front of a trained supernet, on the dev set and on the test set.

    python -m todm.recipes.claim.front RUN

RUN is the folder of a benchmark; the supernet is that of its first seed. Writes RUN/front.csv and RUN/front.json.
"""

import csv
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from scipy.stats import spearmanr
from tqdm import tqdm

from todm.errors import TodmError, script
from todm.files import atomic_write, write_json
from todm.recipes.claim.results import SUPERNET, TRAININGS, chosen_rate
from todm.run import Run
from todm.search.budget import Budget
from todm.search.evolve import evolve
from todm.search.front import Candidate, pareto_front
from todm.search.spread import arch_key, spread
from todm.space import activate
from todm.trained import Trained

SAMPLED = 48
"""Architectures spread over the space, none of them found by search."""
TRIALS = 40
"""Architectures that search evaluates, on the dev set alone."""


def measure(folder: Path) -> dict[str, Any]:
    """Evaluate a spread of architectures and those of a search on both splits.

    Returns:
        `rank_correlation` (Spearman) between the dev error that search goes by and the test error, over the spread,
        None where all err alike;
        `above_best`: how far, in percent, each net of the found front is above the best test error of any net measured
        that is not larger, on average over the front, and `above_best_most` at most;
        `least` and `most`: the range of test errors.
    """
    side = folder / TRAININGS / SUPERNET
    run = min((side / f"lr{chosen_rate(side):g}").glob("seed*"))
    trained = Trained(Run.open(run))

    def error(arch: dict[str, int], split: str = "dev") -> float:
        activate(trained.supernet, arch)
        return float(trained.task.evaluate(trained.supernet, split)["wer"])

    found = evolve(
        trained.space, error, trained.exact, Budget({}), storage=folder / "front.db", study=trained.study,
        trials=TRIALS, seed=trained.recipe.seed,
    )  # fmt: skip
    front = pareto_front(found)
    known = {arch_key(c.arch): c for c in found}
    sampled = [
        known.get(arch_key(arch)) or Candidate(arch, error(arch), trained.exact(arch))
        for arch in tqdm(spread(trained.space, SAMPLED, trained.recipe.seed), "on the dev set")
    ]
    both = {arch_key(c.arch): c for c in [*sampled, *front]}
    test = {key: error(c.arch, "test") for key, c in tqdm(both.items(), "on the test set")}
    rows = [(int(c.costs["params"]), c.error, test[key], c in front, key) for key, c in sorted(
        both.items(), key=lambda item: item[1].costs["params"])]  # fmt: skip
    above = [
        100 * (test[arch_key(c.arch)] / min(row[2] for row in rows if row[0] <= c.costs["params"]) - 1) for c in front
    ]
    keys = [arch_key(c.arch) for c in sampled]
    correlation = float(spearmanr([both[k].error for k in keys], [test[k] for k in keys]).statistic)
    result = {
        "architectures": len(rows), "sampled": len(sampled), "front": len(front),
        "rank_correlation": correlation if math.isfinite(correlation) else None,
        "above_best": mean(above), "above_best_most": max(above),
        "least": min(test.values()), "most": max(test.values()),
    }  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["params", "wer_dev", "wer_test", "on_front", "arch"])
    writer.writerows(rows)
    atomic_write(folder / "front.csv", text.getvalue())
    write_json(folder / "front.json", result)
    return result


@script
def main(arguments: Sequence[str]) -> None:
    """RUN"""
    if len(arguments) != 1:
        raise TodmError("type: python -m todm.recipes.claim.front RUN")
    print(json.dumps(measure(Path(arguments[0])), indent=2))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
