"""The verb that does everything."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from todm.errors import TodmError
from todm.verbs.subnets import report, search
from todm.verbs.training import setting, train

if TYPE_CHECKING:
    from todm.recipe import Export


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
        first = load_recipe(recipe, overrides, setting(full, quick))[0]
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
    asked = load_recipe(recipe, overrides, setting(full, quick))[0]
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


def _check_export(export: "Export") -> None:
    """Find out before training what would stop the run after it.

    Raises:
        TodmError: a runtime or the device is unknown, a package is missing, or a precision is not made that is needed.
    """
    from todm.export.backend import find_backend
    from todm.export.device import find_device

    device = find_device(export.device)
    for runtime in export.runtimes:
        offered = find_backend(runtime).precisions
        if not {*offered} & {*export.precisions}:
            raise TodmError(f"{runtime} writes {', '.join(offered)}: add one to export.precisions")
    if device.precision not in export.precisions:
        raise TodmError(f"device {device.name} measures {device.precision}: add it to export.precisions")
