"""The subnets of a trained run that are asked for: searched by budget, or spread over the sizes."""

import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from todm.deployment import deploy, export_subnet
from todm.errors import TodmError
from todm.export.backend import find_backend
from todm.export.bench import measure
from todm.export.bundle import Bundle
from todm.files import read_json, write_json
from todm.int8 import SimulatedInt8
from todm.search.budget import METRICS, Budget
from todm.search.evolve import evolve
from todm.search.front import Candidate, write_front
from todm.search.predictor import Predictor
from todm.search.spread import arch_key, spread
from todm.space import Arch, activate
from todm.trained import Trained

ATTEMPTS = 3
"""Subnets exported for a budget before giving up on one that measures inside it."""


class Family(Trained):
    """The subnets of a trained run that fit a budget, or span its sizes."""

    def error(self, arch: Arch) -> float:
        """The first dev metric of a subnet, in the number format that is searched for."""
        activate(self.supernet, arch)
        with SimulatedInt8() if self.recipe.search.precision == "int8" else nullcontext():
            return next(iter(self.task.evaluate(self.supernet, "dev").values()))

    @property
    def _searched(self) -> str:
        """What names all that `error` depends on."""
        return self.study if self.recipe.search.precision == "float" else f"{self.study} {self.recipe.search.precision}"

    def measurements(self) -> list[tuple[Arch, dict[str, Any]]]:
        """Measured costs of a few exported subnets, spread over the space; kept in search/measurements.json."""
        path = self.run.path / "search" / f"measurements-{self.device.name}.json"
        known = read_json(path) if path.exists() else {"study": None, "rows": []}
        if known["study"] != self.study:
            scratch = self.run.path / "search" / ".candidate"
            rows = []
            for arch in tqdm(spread(self.space, self.recipe.search.measured, self.recipe.seed), "measuring candidates"):
                rows.append([arch, measure(self._candidate(scratch, arch), self.device)])
            shutil.rmtree(scratch)
            known = {"study": self.study, "rows": rows}
            write_json(path, known)
        return [(arch, row) for arch, row in known["rows"]]

    def _candidate(self, folder: Path, arch: Arch) -> Bundle:
        """The files that a measurement needs: of the default way of use alone, where a runtime keeps ways apart."""
        program, runtime = self.built(arch)[0], self.device.runtime
        if program.variants and find_backend(runtime).apart:
            program = program.only(next(iter(program.variants)))
        return export_subnet(self, folder, program, arch, "candidate", [runtime], [self.device.precision], {})

    def floor(self) -> dict[str, float]:
        """Measured costs of the smallest subnet: no budget below them can be met. Kept in search/floor.json."""
        row = self.measurements()[0][1]
        floor = {key: row[key] for key in METRICS if row.get(key) is not None}
        write_json(self.run.path / "search" / "floor.json", floor)
        return floor

    def costs(self) -> Callable[[Arch], dict[str, float]]:
        """Exact parameters and MACs, and the other costs predicted, each with its held-out error on top."""
        rows = [(arch, {k: row[k] for k in METRICS if row.get(k) is not None}) for arch, row in self.measurements()]
        predictor = Predictor(self.space, self.exact, rows)
        write_json(self.run.path / "search" / "predictor.json", predictor.held_out)

        def costs(arch: Arch) -> dict[str, float]:
            predicted = {name: value + error for name, (value, error) in predictor.predict(arch).items()}
            return predicted | self.exact(arch)

        return costs

    def candidates(self, budget: Budget, trials: int | None) -> list[Candidate]:
        """Evolve subnets for a budget and write search/front.csv."""
        trials = trials or self.recipe.search.trials
        with tqdm(total=trials, desc="searching") as bar:

            def progress(done: int, total: int, candidate: Candidate) -> None:
                bar.update(done - bar.n)
                bar.set_postfix(error=f"{candidate.error:.2f}", params=f"{candidate.costs['params']:.0f}")

            found = evolve(
                self.space, self.error, self.costs(), budget,
                storage=self.recipe.search.storage or self.run.path / "search" / "trials.db",
                study=self._searched, trials=trials, seed=self.recipe.seed,
                error_name=self.run.searched, progress=progress,
            )  # fmt: skip
        write_front(self.run.path / "search" / "front.csv", found, self.run.searched)
        return found

    def assist(self, budget: Budget, trials: int | None) -> int:
        """Evaluate architectures for a search that another process has begun; returns how many are known in the end.

        Raises:
            TodmError: no search has measured its candidates yet.
        """
        path = self.run.path / "search" / f"measurements-{self.device.name}.json"
        if not path.exists() or read_json(path)["study"] != self.study:
            raise TodmError(f"no search of {self.run.path} has begun: type `todm search {self.run.path}` first")
        return len(self.candidates(budget, trials))

    def best(self, budget: Budget, trials: int | None) -> dict[str, Any]:
        """The most accurate subnet within a budget, exported for the device's runtime, and measured inside it.

        A limit on the error is one on that of the dev set.

        Raises:
            TodmError: none of the likeliest ones measures inside the budget.
        """
        metric, costs = self.run.searched, budget.without(self.run.searched)
        found = [c for c in self.candidates(budget, trials) if not costs.violations(c.costs)]
        inside = [c for c in found if not budget.violations({**c.costs, metric: c.error})]
        if not inside:
            least = f"; the least {metric} is {min(c.error for c in found):.3g}" if found else ""
            raise TodmError(f'no subnet within "{budget}" was found{least}; loosen the budget or raise --trials')
        broken: dict[str, float] = {}
        for candidate in sorted(inside, key=lambda c: c.error)[:ATTEMPTS]:
            folder = self.extract(candidate.arch)
            rows = deploy(self, [folder], [self.device.runtime])
            chosen = (self.device.runtime, self.device.precision)
            row = next(row for row in rows if (row["runtime"], row["precision"]) == chosen)
            broken = costs.violations({k: v for k, v in row.items() if not isinstance(v, str)})
            if not broken:
                return {"subnet": str(folder), "bundle": str(folder / "bundle"), "arch": candidate.arch, **row}
        over = ", ".join(f"{name} by {100 * excess:.0f} %" for name, excess in broken.items())
        raise TodmError(f'the best subnets for "{budget}" measure outside it ({over}); loosen the budget')

    def sizes(self, trials: int | None) -> list[str]:
        """A family from the smallest to the largest net, with the most accurate one near each size between.

        The sizes are evenly spaced on a logarithmic scale of parameters.
        """
        found = self.candidates(Budget({}), trials)
        known, chosen = {arch_key(candidate.arch): candidate for candidate in found}, []
        for arch in map(self.space.canonical, (self.space.smallest(), self.space.largest())):
            # A worker that is still at it, or was killed at it, keeps an end from the search.
            end = known.get(arch_key(arch)) or Candidate(arch, self.error(arch), self.exact(arch))
            chosen.append(end)
        low, high = sorted(math.log(end.costs["params"]) for end in chosen)
        step = (high - low) / (self.recipe.search.family - 1)
        for rung in range(1, self.recipe.search.family - 1):
            left = [candidate for candidate in found if candidate not in chosen]
            off = {id(c): abs(math.log(c.costs["params"]) - low - rung * step) for c in left}
            near = [c for c in left if off[id(c)] < step / 2] or sorted(left, key=lambda c: off[id(c)])[:1]
            chosen += sorted(near, key=lambda c: (c.error, c.costs["params"]))[:1]
        folders = [self.extract(c.arch) for c in sorted(chosen, key=lambda c: c.costs["params"])]
        deploy(self, folders, self.recipe.export.runtimes)
        return [str(folder) for folder in folders]
