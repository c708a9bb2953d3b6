"""Verbs that train."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from todm.errors import TodmError

if TYPE_CHECKING:
    from todm.distributed import Shard
    from todm.run import Run
    from todm.trainer import Trainer


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
    loaded, home = load_recipe(recipe, overrides, setting(full, quick))
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
        dev = trainer.evaluate("dev")
        made.note(metric=next(iter(next(iter(dev.values())))))
        return {"run": str(made.path), "dev": dev, "test": trainer.evaluate("test")}


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


def setting(full: bool, quick: bool) -> str:
    if full and quick:
        raise TodmError("give either --full or --quick")
    return "full" if full else "quick" if quick else ""
