"""From the folders of subnets to files on a device: exported, proved, measured."""

import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from todm.errors import TodmError
from todm.export.bench import BENCH_KEYS, measure
from todm.export.browser import NoBrowser
from todm.export.bundle import Bundle, load_bundle, publish, write_bundle
from todm.export.card import FRONT
from todm.export.gate import Gate
from todm.export.proof import attach
from todm.export.report import picture
from todm.files import read_json, write_json
from todm.program import Program
from todm.proof import Chain, within_loss
from todm.rows import put_rows
from todm.run import Run
from todm.space import Arch
from todm.trained import Trained


def deploy(trained: Trained, folders: Sequence[Path], runtimes: Sequence[str]) -> list[dict[str, Any]]:
    """Export subnets, compare each file with PyTorch on the test set, then measure them one by one.

    Exports run side by side on the machine's cores; measurements never do. Returns the rows of bench.csv.
    """
    _prove_all(trained, folders, runtimes)
    measured = []
    for folder in tqdm(folders, "benchmarking"):
        bundle = load_bundle(folder / "bundle")
        rows = _measure_all(trained, folder, bundle)
        bundle.record(measurements=[{k: v for k, v in row.items() if k != "subnet"} for row in rows])
        measured += rows
        proven = [{"subnet": folder.name, **row} for row in bundle.manifest["parity"]]
        put_rows(trained.run.path / "parity.csv", proven, ["subnet", "form"])
        if rows:
            put_rows(trained.run.path / "bench.csv", rows, BENCH_KEYS)
    if measured:
        front = picture(trained.run.path)
        for folder in folders:
            load_bundle(folder / "bundle").record(files={FRONT: front})
    return measured


def _prove_all(trained: Trained, folders: Sequence[Path], runtimes: Sequence[str]) -> None:
    jobs = [(str(trained.run.path), trained.profile, str(folder), list(runtimes)) for folder in folders]
    workers = min(len(jobs), os.cpu_count() or 1, 4)
    if workers == 1:
        for folder in folders:
            prove(trained, folder, runtimes)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
        try:
            list(tqdm(pool.map(_prove, jobs), "exporting", total=len(jobs)))
        except BrokenProcessPool as error:
            raise TodmError(
                "a process that exports has died (is there memory enough?); type the command again"
            ) from error


def _measure_all(trained: Trained, folder: Path, bundle: Bundle) -> list[dict[str, Any]]:
    """A row for every form of a bundle that can be measured here."""
    scores, rows = {row["form"]: row for row in bundle.manifest["parity"]}, []
    metric = next(iter(bundle.manifest["metrics"]))
    for runtime, precision in dict.fromkeys((form["runtime"], form["precision"]) for form in bundle.forms()):
        samples = folder / f"cycles-{runtime}-{precision}.csv"
        try:
            row = measure(bundle, trained.device, runtime, precision, samples)
        except NoBrowser as missing:
            print(f"todm: {runtime} {precision} is exported, not measured: {missing}", file=sys.stderr)
            continue
        rows.append({"subnet": folder.name, **row, metric: scores[f"{runtime} {precision}"][metric]})
    return rows


def prove(trained: Trained, folder: Path, runtimes: Sequence[str]) -> None:
    """Export one subnet, put its bundle in place if it passes the gate, and record how its files compare.

    Raises:
        TodmError: a file is another model than the subnet, or int8 costs too much; the old bundle stays.
    """
    arch, subnet = trained.load(folder)
    chain = Chain(trained.task, trained.task.program(subnet))
    write_json(folder / "metrics.json", read_json(folder / "metrics.json") | {"test": chain.truth.metrics})
    scratch, export = folder / ".bundle", trained.recipe.export
    try:
        bundle = within_loss(
            chain, runtimes, export.max_wer_loss if {"float", "int8"} <= {*export.precisions} else None,
            lambda kept, before: export_subnet(
                trained, scratch, chain.program, arch, f"{trained.recipe.name}-{folder.name}", runtimes,
                export.precisions, chain.truth.metrics, chain.recorded(), kept, before,
            ),
        )  # fmt: skip
        rows = chain.pytorch_rows(trained.supernet, arch, (folder / "subnet.safetensors").stat().st_size)
        rows += chain.file_rows(bundle)
        origin = {key: trained.run.info.get(key) for key in ("name", "seed", "created", "git_commit", "versions")}
        bundle.record(parity=rows, run=origin | {"checkpoint": trained.study})
        Gate(export.max_difference, export.max_changed).check(rows, len(chain.truth.outputs))
        attach(bundle, chain.program, chain.carried())
        publish(bundle, folder / "bundle")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def export_subnet(
    trained: Trained, folder: Path, program: Program, arch: Arch, name: str, runtimes: Sequence[str],
    precisions: Sequence[Any], metrics: dict[str, float], calls: Any = (),
    kept: Mapping[str, frozenset[str]] | None = None, before: Bundle | None = None,
) -> Bundle:  # fmt: skip
    """A bundle of a subnet's program, with what the run knows of its costs and data; the rest as `write_bundle`."""
    costs, data = trained.exact(arch), trained.run.info.get("data", {})
    return write_bundle(
        folder, program, name=name, arch=arch, params=int(costs["params"]), macs=int(costs["macs"]),
        metrics=metrics, data={"name": data.get("source", ""), "license": data.get("licence", "other")},
        task=getattr(trained.task, "pipeline", ""), runtimes=runtimes, precisions=precisions, calibration=calls,
        delegated=trained.recipe.export.delegated, kept=kept, before=before,
    )  # fmt: skip


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
    prove(_opened(run, device), Path(folder), runtimes)


@cache
def _opened(run: str, device: str) -> Trained:
    """Once for all the subnets that a process exports."""
    return Trained(Run.open(run), device)
