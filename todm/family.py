"""The subnets of a trained run: found, extracted, exported, proved and measured."""

import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn
from tqdm import tqdm

from todm.checkpoint import fingerprint, newest_checkpoint
from todm.dropout import install
from todm.errors import TodmError
from todm.export.backend import find_backend
from todm.export.bench import BENCH_KEYS, measure
from todm.export.browser import NoBrowser
from todm.export.bundle import Bundle, load_bundle, publish, write_bundle
from todm.export.card import FRONT
from todm.export.device import Device, find_device
from todm.export.gate import Gate
from todm.export.proof import attach
from todm.export.report import picture
from todm.files import atomic_write, read_json, write_json
from todm.int8 import SimulatedInt8
from todm.program import Program
from todm.proof import Chain, within_loss
from todm.rows import put_rows
from todm.run import Run
from todm.search.budget import METRICS, Budget
from todm.search.cost import CostModel
from todm.search.evolve import evolve
from todm.search.front import Candidate, write_front
from todm.search.predictor import Predictor
from todm.search.spread import arch_key, spread
from todm.space import Arch, SearchSpace, activate
from todm.subnet import extract

ATTEMPTS = 3
"""Subnets exported for a budget before giving up on one that measures inside it."""


class Family:
    """All subnets of a run's supernet.

    Args:
        run: A trained run.
        device: Name or path of the device profile, by default the recipe's.

    Raises:
        TodmError: the run is not trained, or the device is unknown.
    """

    def __init__(self, run: Run, device: str | None = None) -> None:
        self.run, self.recipe = run, run.recipe
        self.profile = device or run.recipe.export.device
        self.device: Device = find_device(self.profile)
        state, _ = newest_checkpoint(run.path / "checkpoints")
        self.task = run.task()
        trained, now = run.info.get("data", {}), self.task.provenance()
        if trained.get("sha256") != now.get("sha256"):
            raise TodmError(
                f"{run.path} was trained on: {trained.get('source')}; now there are: {now.get('source')}; "
                "set TODM_DATA, or the recipe's data, as they were"
            )
        self.supernet: nn.Module = self.task.build()
        install(self.supernet, run.recipe.dropout)
        self.supernet.eval()
        prefix = "module."
        weights = {k.removeprefix(prefix): v for k, v in state["average"].items() if k.startswith(prefix)}
        self.supernet.load_state_dict(weights)
        self.space = SearchSpace.of(self.supernet)
        self.study = fingerprint(weights)
        self.exact = CostModel(self.space, self._built)

    def _built(self, arch: Arch) -> tuple[Program, nn.Module]:
        subnet = extract(self.supernet, arch).eval()
        return self.task.program(subnet), subnet

    def error(self, arch: Arch) -> float:
        """The first dev metric of a subnet, in the number format that is searched for."""
        activate(self.supernet, arch)
        with SimulatedInt8() if self.recipe.search.precision == "int8" else nullcontext():
            return next(iter(self.task.evaluate(self.supernet, "dev").values()))

    @property
    def _searched(self) -> str:
        """What names all that `error` depends on."""
        return self.study if self.recipe.search.precision == "float" else f"{self.study} {self.recipe.search.precision}"

    # -- costs ------------------------------------------------------------------------------------------------

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
        program, runtime = self._built(arch)[0], self.device.runtime
        if program.variants and find_backend(runtime).apart:
            program = program.only(next(iter(program.variants)))
        return self._bundle(folder, program, arch, "candidate", [runtime], [self.device.precision], {})

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

    # -- search -----------------------------------------------------------------------------------------------

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
            rows = self.deploy([folder], [self.device.runtime])
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
        self.deploy(folders, self.recipe.export.runtimes)
        return [str(folder) for folder in folders]

    # -- deployment -------------------------------------------------------------------------------------------

    def extract(self, arch: Arch, name: str | None = None) -> Path:
        """Write a standalone subnet: subnet.safetensors, arch.json, metrics.json; returns its folder."""
        arch = self.space.canonical(arch)
        activate(self.supernet, arch)
        dev = self.task.evaluate(self.supernet, "dev")
        subnet = self._built(arch)[1]
        metric, error = next(iter(dev.items()))
        costs = self.exact(arch)
        name = name or f"{self.device.name}@{costs['weight_bytes'] / 1e6:.2f}MB_{metric}{error:.1f}"
        folder = self.run.path / "subnets" / name
        atomic_write(folder / "subnet.safetensors", save(subnet.state_dict()))
        write_json(folder / "arch.json", arch)
        write_json(folder / "metrics.json", {"name": name, **costs, "dev": dev})
        return folder

    def load(self, folder: Path) -> tuple[Arch, nn.Module]:
        """A subnet from its folder.

        Raises:
            TodmError: a file is missing or damaged, or belongs to another supernet.
        """
        arch: Arch = read_json(folder / "arch.json")
        try:
            subnet = extract(self.supernet, arch).eval()
            subnet.load_state_dict(load_file(folder / "subnet.safetensors"))
        except Exception as error:
            line = " ".join(str(error).split())[:120]
            raise TodmError(f"{folder} does not hold a subnet of {self.run.path}: {line}") from error
        return arch, subnet

    def deploy(self, folders: Sequence[Path], runtimes: Sequence[str]) -> list[dict[str, Any]]:
        """Export subnets, compare each file with PyTorch on the test set, then measure them one by one.

        Exports run side by side on the machine's cores; measurements never do.
        """
        jobs = [(str(self.run.path), self.profile, str(folder), list(runtimes)) for folder in folders]
        workers = min(len(jobs), os.cpu_count() or 1, 4)
        if workers > 1:
            with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
                try:
                    list(tqdm(pool.map(_prove, jobs), "exporting", total=len(jobs)))
                except BrokenProcessPool as error:
                    raise TodmError(
                        "a process that exports has died (is there memory enough?); type the command again"
                    ) from error
        else:
            for folder in folders:
                self.prove(folder, runtimes)
        measured: list[dict[str, Any]] = []
        bar = tqdm(folders, "benchmarking")
        for folder in bar:
            bundle = load_bundle(folder / "bundle")
            parity = {row["form"]: row for row in bundle.manifest["parity"]}
            rows = []
            metric = next(iter(bundle.manifest["metrics"]))
            for runtime, precision in dict.fromkeys((form["runtime"], form["precision"]) for form in bundle.forms()):
                samples = folder / f"cycles-{runtime}-{precision}.csv"
                try:
                    row = measure(bundle, self.device, runtime, precision, samples)
                except NoBrowser as missing:
                    print(f"todm: {runtime} {precision} is exported, not measured: {missing}", file=sys.stderr)
                    continue
                rows.append({"subnet": folder.name, **row, metric: parity[f"{runtime} {precision}"][metric]})
            bundle.record(measurements=[{k: v for k, v in row.items() if k != "subnet"} for row in rows])
            measured += rows
            proven = [{"subnet": folder.name, **row} for row in bundle.manifest["parity"]]
            put_rows(self.run.path / "parity.csv", proven, ["subnet", "form"])
            if rows:
                put_rows(self.run.path / "bench.csv", rows, BENCH_KEYS)
        if measured:
            front = picture(self.run.path)
            for folder in folders:
                load_bundle(folder / "bundle").record(files={FRONT: front})
        return measured

    def prove(self, folder: Path, runtimes: Sequence[str]) -> None:
        """Export one subnet, put its bundle in place if it passes the gate, and write its rows of parity.csv.

        Raises:
            TodmError: a file is another model than the subnet, or int8 costs too much; the old bundle stays.
        """
        arch, subnet = self.load(folder)
        chain = Chain(self.task, self.task.program(subnet))
        write_json(folder / "metrics.json", read_json(folder / "metrics.json") | {"test": chain.truth.metrics})
        scratch, export = folder / ".bundle", self.recipe.export
        try:
            bundle = within_loss(
                chain, runtimes, export.max_wer_loss if {"float", "int8"} <= {*export.precisions} else None,
                lambda kept, before: self._bundle(
                    scratch, chain.program, arch, f"{self.recipe.name}-{folder.name}", runtimes, export.precisions,
                    chain.truth.metrics, chain.recorded(), kept, before,
                ),
            )  # fmt: skip
            rows = chain.pytorch_rows(self.supernet, arch, (folder / "subnet.safetensors").stat().st_size)
            rows += chain.file_rows(bundle)
            origin = {key: self.run.info.get(key) for key in ("name", "seed", "created", "git_commit", "versions")}
            bundle.record(parity=rows, run=origin | {"checkpoint": self.study})
            Gate(export.max_difference, export.max_changed).check(rows, len(chain.truth.outputs))
            attach(bundle, chain.program, chain.carried())
            publish(bundle, folder / "bundle")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _bundle(
        self, folder: Path, program: Program, arch: Arch, name: str, runtimes: Sequence[str], precisions: Sequence[Any],
        metrics: dict[str, float], calls: Any = (), kept: Mapping[str, frozenset[str]] | None = None,
        before: Bundle | None = None,
    ) -> Bundle:  # fmt: skip
        costs, data = self.exact(arch), self.run.info.get("data", {})
        return write_bundle(
            folder, program, name=name, arch=arch, params=int(costs["params"]), macs=int(costs["macs"]),
            metrics=metrics, data={"name": data.get("source", ""), "license": data.get("licence", "other")},
            task=getattr(self.task, "pipeline", ""), runtimes=runtimes, precisions=precisions, calibration=calls,
            delegated=self.recipe.export.delegated, kept=kept, before=before,
        )  # fmt: skip


def read_arch(text: str, space: SearchSpace) -> Arch:
    """An architecture as a user gives it: `smallest`, `largest`, a JSON object, or a file that holds one.

    Raises:
        TodmError: it is none of these, or does not belong to the space.
    """
    if text in ("smallest", "largest"):
        return space.smallest() if text == "smallest" else space.largest()
    try:
        content = Path(text).read_text(encoding="utf-8") if Path(text).is_file() else text
        return space.check(json.loads(content))
    except (ValueError, AttributeError, TypeError) as error:
        raise TodmError(f"--arch {text!r}: {error}; give smallest, largest, or JSON with every choice") from error


def _end_with_parent() -> None:
    """Let this process end when the one that started it is killed: the next start would meet it in the same folders."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _prove(job: tuple[str, str, str, list[str]]) -> None:
    run, device, folder, runtimes = job
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    _opened(run, device).prove(Path(folder), runtimes)


@cache
def _opened(run: str, device: str) -> Family:
    """Once for all the subnets that a process exports."""
    return Family(Run.open(run), device)
