"""What a user can do, one function a verb: the command line and the Python interface are both made of these."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from todm.errors import TodmError

if TYPE_CHECKING:
    from todm.distributed import Shard
    from todm.recipe import Export
    from todm.run import Run
    from todm.trainer import Trainer


def run(
    recipe: str,
    out: str | None = None,
    data: str | None = None,
    resume: str = "auto",
    full: bool = False,
    quick: bool = False,
    seeds: int = 1,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Do everything: train, search, export a family of subnets, measure it, write the report.

    Args:
        recipe: Name of a shipped recipe, or path of a recipe file or its folder.
        out: Folder of the run; by default runs/NAME.
        data: Folder of the recordings; by default the recipe finds or downloads them.
        resume: `auto` goes on with what the folder holds, `never` insists on a new folder.
        full: Use the recipe's long setting, recipe-full.yaml.
        quick: Use the recipe's smallest setting, recipe-quick.yaml, which only shows that everything runs.
        seeds: Number of runs with seeds one apart, each in a folder of its own in `out`.
        overrides: E.g. --training.updates 500.
    """
    from todm.export.report import table
    from todm.files import write_json
    from todm.recipe import load_recipe, merged
    from todm.seeds import as_text, summarise

    if seeds > 1:
        first = load_recipe(recipe, overrides, _setting(full, quick))[0]
        folder = Path(out or f"runs/{first.name}")
        runs = [
            run(
                recipe,
                str(folder / f"seed{seed}"),
                data,
                resume,
                full,
                quick,
                1,
                merged(overrides or {}, {"seed": seed}),
            )
            for seed in range(first.seed, first.seed + seeds)
        ]
        metric = next(iter(runs[0]["test"]["largest"]))
        summary = summarise([Path(one["run"]) for one in runs], metric)
        write_json(folder / "seeds.json", summary)
        print(f"\n{as_text(summary, metric)}", file=sys.stderr)
        return {"runs": runs, "summary": summary}
    asked = load_recipe(recipe, overrides, _setting(full, quick))[0]
    if asked.benchmark:
        changes = merged(overrides or {}, {"data": {"folder": data}} if data else {})
        module, _, function = asked.benchmark.partition(":")
        benchmark = getattr(importlib.import_module(module), function)
        return benchmark(recipe, Path(out or f"runs/{asked.name}"), quick, changes)
    if asked.training.nets == "alone":
        raise TodmError("training.nets is alone: there is no family to search; type `todm train` instead")
    _check_export(asked.export)
    trained = train(recipe, out, data, resume, full, quick, overrides)
    found = search(trained["run"])
    page = report(trained["run"])
    print(f"\n{table(Path(trained['run']))}\n\nreport: {page['report']}", file=sys.stderr)
    return {**trained, **found, **page}


def train(
    recipe: str, out: str | None = None, data: str | None = None, resume: str = "never", full: bool = False,
    quick: bool = False, overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train the supernet of a recipe.

    Args:
        recipe: Name of a shipped recipe, or path of a recipe file or its folder.
        out: Folder of the run; by default runs/NAME.
        data: Folder of the recordings; by default the recipe finds or downloads them.
        resume: `auto` goes on from the newest checkpoint, `never` insists on a new folder.
        full: Use the recipe's long setting, recipe-full.yaml.
        quick: Use the recipe's smallest setting, recipe-quick.yaml, which only shows that everything runs.
        overrides: E.g. --training.updates 500.
    """
    from todm.recipe import load_recipe, merged
    from todm.run import Run

    if resume not in ("auto", "never"):
        raise TodmError(f"--resume must be auto or never, not {resume!r}")
    overrides = merged(overrides or {}, {"data": {"folder": data}} if data else {})
    loaded, home = load_recipe(recipe, overrides, _setting(full, quick))
    folder = Path(out or f"runs/{loaded.name}")
    if int(os.environ.get("RANK", "0")) > 0:  # One of several processes, as torchrun numbers them.
        return _assist(folder)
    made = Run.create(folder, loaded, home, resume)
    with made.locked(), made.timed("train"):
        from todm.distributed import barrier, processes

        task = made.task()
        made.note(data=task.provenance(), metric_unit=getattr(task, "unit", "%"))
        shard = processes()
        barrier()  # The others read what has been written.
        trainer, warnings = _trainer(made, shard)
        for warning in warnings:
            print(f"todm: {warning}; going on from the one before", file=sys.stderr)
        barrier()  # All have read the checkpoint.
        trainer.fit()
        barrier()
        return {"run": str(made.path), "dev": trainer.evaluate("dev"), "test": trainer.evaluate("test")}


def _trainer(made: "Run", shard: "Shard") -> tuple["Trainer", list[str]]:
    """A run's trainer where the newest checkpoint stands, with warnings about damaged ones."""
    from todm.checkpoint import list_checkpoints
    from todm.trainer import Trainer

    recipe = made.recipe
    trainer = Trainer(made.task(), recipe.training, made.path, recipe.seed, recipe.dropout, shard)
    return trainer, trainer.resume() if list_checkpoints(made.path / "checkpoints") else []


def _assist(folder: Path) -> dict[str, Any]:
    """Train as one of the processes that are not the first: nothing is written."""
    from todm.distributed import barrier, processes
    from todm.run import Run

    shard = processes()
    barrier()
    trainer, _ = _trainer(Run.open(folder), shard)
    barrier()
    trainer.fit()
    barrier()
    return {"run": str(folder)}


def compare(
    recipe: str, out: str | None = None, rows: str = "", seeds: int | None = None, quick: bool = False,
    data: str | None = None, json: bool = False, overrides: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train the variants that a recipe's compare.yaml names, with several seeds, and set them side by side.

    Args:
        recipe: Name of a shipped recipe, or path of a recipe file or its folder.
        out: Folder of the comparison; by default runs/NAME-compare. It goes on with what is there.
        rows: Variants to train, separated by commas; by default all.
        seeds: Trainings of each, by default as compare.yaml says.
        quick: Its smallest setting, which only shows that everything runs.
        data: Folder of the data; by default the recipe finds or downloads them.
        json: Print the result as JSON.
        overrides: E.g. --training.updates 500, for all variants.
    """
    from todm.compare import as_markdown
    from todm.compare import compare as train_and_test
    from todm.recipe import load_recipe

    folder = Path(out or f"runs/{load_recipe(recipe)[0].name}-compare")
    chosen = [row.strip() for row in rows.split(",") if row.strip()]
    table = train_and_test(recipe, folder, rows=chosen, seeds=seeds, quick=quick, data=data, overrides=overrides)
    if not json:
        print(f"\n{as_markdown(table)}\n{folder / 'table.md'}, {folder / 'results.csv'}")
    return table


def search(
    run: str,
    budget: str = "",
    trials: int | None = None,
    device: str | None = None,
    worker: bool = False,
    json: bool = False,
) -> dict[str, Any]:
    """Find, export and measure the best subnet within a budget, or without one a family of sizes.

    Args:
        run: Folder of a trained run.
        budget: Limits, e.g. "size<=1MB, rtf<=0.05, latency_p90<=20ms, peak_memory<=40MB, params<=1M, macs<=100M".
        trials: Architectures to evaluate, by default as the recipe says.
        device: Device profile to measure on, by default the recipe's.
        worker: Only evaluate architectures, beside a search of the same run, budget and trials in another process.
        json: Print the result as JSON.
    """
    from todm.files import read_json
    from todm.run import Run
    from todm.search.budget import Budget, check_feasible

    opened, limits = Run.open(run), Budget.parse(budget)
    floor = opened.path / "search" / "floor.json"
    if floor.exists():
        check_feasible(limits, read_json(floor))

    from todm.family import Family

    if worker:
        return {"evaluated": Family(opened, device).assist(limits, trials)}
    with opened.locked(), opened.timed("search"):
        family = Family(opened, device)
        check_feasible(limits, family.floor())
        if budget:
            return family.best(limits, trials)
        return {"subnets": family.sizes(trials)}


def extract(run: str, arch: str, name: str | None = None, json: bool = False) -> dict[str, Any]:
    """Copy one architecture out of a trained supernet, as a standalone network in safetensors.

    Args:
        run: Folder of a trained run.
        arch: `smallest`, `largest`, or a JSON object or file with the value of every choice.
        name: Name of the subnet; by default made of its size and error rate.
        json: Print the result as JSON.
    """
    from todm.family import Family, read_arch
    from todm.run import Run

    opened = Run.open(run)
    with opened.locked():
        family = Family(opened)
        folder = family.extract(read_arch(arch, family.space), name)
    return {"subnet": str(folder)}


def export(
    subnet: str, to: str = "onnx,executorch", chunk_ms: int | None = None, max_wer_loss: float | None = None,
    max_difference: float | None = None, device: str | None = None, json: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Export an extracted subnet, check it against PyTorch on the test set, measure it, bundle it.

    Args:
        subnet: Folder of the subnet, runs/NAME/subnets/SUBNET.
        to: Runtimes, separated by commas.
        chunk_ms: Signal that one call of a streaming encoder consumes: 160, 320 or 640; by default the recipe's.
        max_wer_loss: Points of word error rate that int8 may cost; by default the recipe's.
        max_difference: Largest relative difference of a float file from PyTorch; by default the recipe's.
        device: Device profile to measure on, by default the recipe's.
        json: Print the result as JSON.
    """
    from todm.family import Family
    from todm.run import Run

    folder = Path(subnet).resolve()
    over: dict[str, Any] = {} if chunk_ms is None else {"model": {"chunk_ms": chunk_ms}}
    gate = {"max_wer_loss": max_wer_loss, "max_difference": max_difference}
    over["export"] = {key: value for key, value in gate.items() if value is not None}
    opened = Run.open(folder.parent.parent).adjusted(over)
    with opened.locked():
        rows = Family(opened, device).deploy([folder], to.split(","))
    return {"bundle": os.path.relpath(folder / "bundle"), "files": rows}


def bench(
    bundle: str,
    device: str = "local",
    runtime: str | None = None,
    precision: str | None = None,
    paced: int = 25,
    soak: int = 10_000,
    samples: str | None = None,
    json: bool = False,
) -> dict[str, Any]:
    """Measure the files of a bundle on a device: latency, missed deadlines, load time, memory, size, delegation.

    The row is kept in the bundle, and in bench.csv of the run it belongs to.

    Args:
        bundle: Folder of a bundle or of its subnet.
        device: Device profile: a name shipped with the package or the path of a YAML file.
        runtime: The runtime to report, by default the profile's.
        precision: The precision to report, float or int8, by default the profile's.
        paced: Chunks to measure at the pace of a live signal.
        soak: Cycles over which the growth of memory is watched.
        samples: CSV file to keep the time of every cycle in.
        json: Print the result as JSON.
    """
    from todm.export.bench import keep, measure
    from todm.export.bundle import load_bundle
    from todm.export.device import find_device

    profile, loaded = find_device(device), load_bundle(bundle_folder(bundle))
    row = measure(loaded, profile, runtime, precision, Path(samples) if samples else None, paced, soak)  # type: ignore[arg-type]
    keep(loaded, row)
    if not json:
        for key, value in row.items():
            print(f"{key:20} {value}")
    return row


def advise(run: str, budget: str = "", device: str | None = None, json: bool = False) -> dict[str, Any]:
    """Say which subnet of a run fits a budget on a device, what it scores, and how sure that is.

    Args:
        run: Folder of a run that has been searched.
        budget: Limits, e.g. "size<=2MB, rtf<=0.3"; without any, the most accurate subnet.
        device: Device profile, by default the recipe's: a name or the path of a YAML file.
        json: Print the result as JSON.
    """
    from todm.export.device import find_device
    from todm.run import Run
    from todm.search.advise import advise as choose
    from todm.search.advise import as_text, described
    from todm.search.budget import Budget
    from todm.search.evidence import options_of

    opened, limits = Run.open(run), Budget.parse(budget)
    profile = find_device(device or opened.recipe.export.device)
    options, metric = options_of(opened.path, profile.name, profile.runtime, profile.precision)
    result = {"device": profile.name, "budget": str(limits), **described(choose(options, limits, metric), metric)}
    if not json:
        print(as_text(result, metric))
    return result


def verify(bundle: str, json: bool = False) -> dict[str, Any]:
    """Check a bundle on this machine: checksums, parity with PyTorch, delegation; exit code 2 on any breach.

    Args:
        bundle: Folder of a bundle or of its subnet.
        json: Print the result as JSON, also that of a breach.
    """
    from json import dumps

    from todm.export.verify import as_text
    from todm.export.verify import verify as check

    result = check(bundle_folder(bundle))
    if result["breaches"]:
        if json:
            print(dumps(result, indent=2))
        raise TodmError("; ".join(result["breaches"]))
    if not json:
        print(as_text(result))
    return result


def report(run: str) -> dict[str, Any]:
    """Write report.html from what a run folder holds.

    Args:
        run: Folder of a run.
    """
    from todm.export.report import write_report
    from todm.run import Run

    return {"report": str(write_report(Run.open(run).path))}


def transcribe(
    bundle: str,
    files: Sequence[str] = (),
    device: str = "local",
    runtime: str | None = None,
    precision: str | None = None,
    beam: int = 1,
    stream: bool = False,
    microphone: bool = False,
    json: bool = False,
) -> list[dict[str, Any]]:
    """Print the words of audio files, or of a microphone, recognised by an exported subnet.

    Args:
        bundle: Folder of a bundle or of its subnet.
        files: Audio files of any format, rate and number of channels.
        device: Profile whose runtime, precision and threads are used, on this machine.
        runtime: onnx or executorch, by default the profile's.
        precision: float or int8, by default the profile's.
        beam: Hypotheses kept by the beam search; 1 is greedy.
        stream: Hear the files in pieces as a microphone gives them, and print the words as they come.
        microphone: Listen until Ctrl-C, printing the words as they come.
        json: Print the result as JSON.
    """
    from todm.export.bundle import load_bundle
    from todm.export.device import find_device
    from todm.speech.decode import StreamRecogniser
    from todm.speech.features import SAMPLE_RATE, load_audio
    from todm.speech.live import follow, listen, pieces
    from todm.speech.program import FRAMES_PER_SECOND, LONGEST
    from todm.speech.recogniser import recogniser_of

    profile = find_device(device)
    if profile.reach != "local":
        raise TodmError(f"transcribe works on this machine, not on {profile.name}; measure there with: todm bench")
    if bool(files) == microphone:
        raise TodmError("name audio files to transcribe, or type --microphone")
    heard = [(file, load_audio(file)) for file in files]
    loaded = load_bundle(bundle_folder(bundle))
    # The whole-utterance form has a longest utterance; chunks have none.
    whole = not (stream or microphone) and "offline" in loaded.variants
    whole = whole and all(len(audio) <= LONGEST * SAMPLE_RATE / FRAMES_PER_SECOND for _, audio in heard)
    form = (runtime or profile.runtime, precision or profile.precision)
    recogniser = recogniser_of(loaded, *form, beam, stream=not whole, threads=profile.threads)
    show = None if json else sys.stdout
    if microphone or stream:
        assert isinstance(recogniser, StreamRecogniser)
        sources = [("microphone", listen())] if microphone else [(file, pieces(audio)) for file, audio in heard]
        return [{"file": name, "text": follow(recogniser, source, show)} for name, source in sources]
    result = [{"file": file, "text": recogniser.transcribe(audio)} for file, audio in heard]
    if not json:
        for row in result:
            print(f"{row['file']}: {row['text']}")
    return result


def doctor(json: bool = False) -> dict[str, Any]:
    """Say what is installed, what is missing, and what to type.

    Args:
        json: Print the result as JSON.
    """
    from todm.doctor import as_text, examine

    result = examine()
    if not json:
        print(as_text(result))
    return result


def _setting(full: bool, quick: bool) -> str:
    if full and quick:
        raise TodmError("give either --full or --quick")
    return "full" if full else "quick" if quick else ""


def _check_export(export: "Export") -> None:
    """Find out before training what would stop the run after it.

    Raises:
        TodmError: a runtime or the device is unknown, a package is missing, or the device's precision is not made.
    """
    from todm.export.backend import find_backend
    from todm.export.device import find_device

    device = find_device(export.device)
    for runtime in export.runtimes:
        find_backend(runtime)
    if device.precision not in export.precisions:
        raise TodmError(f"device {device.name} measures {device.precision}: add it to export.precisions")


def bundle_folder(path: str) -> Path:
    """The bundle itself, given it or the subnet it is in."""
    folder = Path(path)
    return folder / "bundle" if (folder / "bundle").is_dir() else folder
