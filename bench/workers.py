"""Two search workers on one study against one, with the same number of trials: `python -m bench.workers`.

The space is the demo encoder's, the error a formula in which later blocks help less
and width has diminishing returns; every evaluation takes as long. What is compared is the area that a
front dominates, as a share of that of the best front any of the searches found.
"""

import multiprocessing
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev

from todm.search.budget import Budget
from todm.search.evolve import evolve
from todm.search.front import Candidate, pareto_front
from todm.space import Arch, SearchSpace
from todm.speech.encoder import EncoderConfig
from todm.speech.transducer import Transducer

TRIALS, SEEDS, SECONDS = 60, 10, 0.03
T_QUANTILE = 2.262
"""Student's, for a 95 % interval of SEEDS differences."""


def error(arch: Arch) -> float:
    """The formula, after the time that an evaluation takes."""
    time.sleep(SECONDS)
    return 20 - sum(0.7**i * (3 * (arch[f"hidden{i}"] / 256) ** 0.5 + 1) for i in range(arch["depth"]))


def costs(arch: Arch) -> dict[str, float]:
    """Parameters, by and large: what is common, each block's mixer, and its feed-forward layer."""
    return {"params": 30_000 + sum(7_000 + 129 * arch[f"hidden{i}"] for i in range(arch["depth"]))}


def search(storage: Path, seed: int) -> list[Candidate]:
    """One worker's share of a search, or all of it."""
    space = SearchSpace.of(Transducer(EncoderConfig(), 30, 64, 32))
    return evolve(space, error, costs, Budget({}), storage=storage, study="bench", trials=TRIALS, seed=seed)


def searched(workers: int, seed: int) -> tuple[list[Candidate], float]:
    """What so many workers found together, and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        storage, fork = Path(folder, "trials.db"), multiprocessing.get_context("fork")
        others = [fork.Process(target=search, args=(storage, seed)) for _ in range(workers - 1)]
        begin = time.perf_counter()
        for other in others:
            other.start()
        search(storage, seed)
        for other in others:
            other.join()
        seconds = time.perf_counter() - begin
        return search(storage, seed), seconds  # all trials are made: this only reads them


def volume(candidates: list[Candidate]) -> float:
    """Area between the front and the corner of the largest size and an error of 20."""
    area, worst, most = 0.0, 20.0, max(c.costs["params"] for c in candidates)
    for candidate in pareto_front(candidates):
        area += (most - candidate.costs["params"]) * (worst - candidate.error)
        worst = candidate.error
    return area


def main() -> None:
    """Both kinds of search with every seed, in turn."""
    found = {workers: [searched(workers, seed) for seed in range(SEEDS)] for workers in (1, 2)}
    best = volume([c for runs in found.values() for candidates, _ in runs for c in candidates])
    shares = {workers: [100 * volume(c) / best for c, _ in runs] for workers, runs in found.items()}
    for workers, runs in found.items():
        trials = mean(len(candidates) for candidates, _ in runs)
        seconds = mean(seconds for _, seconds in runs)
        spread = stdev(shares[workers])
        print(
            f"{workers} worker(s): {mean(shares[workers]):.2f} +- {spread:.2f} %, {trials:.1f} trials, {seconds:.1f} s"
        )
    gaps = [two - one for one, two in zip(shares[1], shares[2], strict=True)]
    print(f"difference: {mean(gaps):+.2f} +- {T_QUANTILE * stdev(gaps) / SEEDS**0.5:.2f} points (95 % interval)")


if __name__ == "__main__":
    main()
