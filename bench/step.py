"""Where the time of a training step goes, part by part, and what a whole family costs beside its largest net alone.

    python -m bench.step [RECIPE [FILE.json]]       digits by default

Each part is run forward and backward by itself on the same batches, for the ends of the family; then whole updates of
the supernet and of the largest net alone, at places spread evenly over the recipe's own schedule. Times are CPU
milliseconds of one thread, parts as medians over batches, all in one process.
"""

import gc
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.run import cpu_model
from todm.files import write_json
from todm.once import Once
from todm.recipe import load_recipe
from todm.run import Run
from todm.space import activate
from todm.speech.batches import Batch
from todm.speech.collapse import collapse
from todm.speech.encoder import subsampled
from todm.speech.lattice import lattice_loss
from todm.speech.transducer import BLANK, Transducer
from todm.trainer import Trainer

BATCHES, PLACES = 10, 20
UNSHARED = "supernet, nothing shared"
FIRST = 300
"""Batch to begin with, past the short ones of the start."""


def timed(work: Callable[[], object]) -> float:
    """CPU milliseconds of one call, without the collector of garbage: it comes rarely, for a third of a second."""
    gc.disable()
    start = time.process_time()
    work()
    seconds = time.process_time() - start
    gc.enable()
    return 1000 * seconds


def parts(model: Transducer, batch: Batch) -> dict[str, float]:
    """Milliseconds of each part of a step with the net that is active, forward and backward."""
    encoder, tokens, lengths = model.encoder, batch.tokens, subsampled(batch.feature_lengths)
    counts = batch.token_lengths
    found: dict[str, float] = {}

    def part(name: str, forward: Callable[[], Tensor]) -> Tensor:
        out: list[Tensor] = []

        def both() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                out.append(forward())
            out[0].float().sum().backward()

        found[name] = timed(both)
        return out[0].detach().float().requires_grad_()

    def blocks(x: Tensor) -> Tensor:
        for block in encoder.blocks:
            x = block(x)
        return encoder.project(encoder.norm(x))

    def transducer(logits: Tensor) -> Tensor:
        return lattice_loss(collapse(logits, tokens, counts, BLANK), lengths, counts)[0]

    def ctc(encoded: Tensor) -> Tensor:
        log_probs = model.ctc(encoded).float().log_softmax(-1).transpose(0, 1)
        return F.ctc_loss(log_probs, tokens, lengths, counts, BLANK, "sum", zero_infinity=True)

    x = part("encoder: subsampling", lambda: encoder.subsample(batch.features))
    encoded = part("encoder: blocks", lambda: blocks(x))
    logits = part("predictor and joiner", lambda: model.lattice(encoded, tokens))
    part("transducer loss", lambda: transducer(logits))
    part("CTC loss", lambda: ctc(encoded))
    return found


def course(sides: dict[str, Trainer], batches: list[Batch]) -> dict[str, list[float]]:
    """Milliseconds of an update of each side at `PLACES` spread evenly over training: means over batches.

    The sides take turns batch by batch: what else the machine does slows them alike.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for place in range(PLACES):
        for trainer in sides.values():
            trainer.update = int((place + 0.5) / PLACES * trainer.config.updates)
        rows = [{name: timed(partial(update, name, of, batch)) for name, of in sides.items()} for batch in batches]
        for name, column in found.items():
            column.append(fmean(row[name] for row in rows))
    return found


def update(side: str, trainer: Trainer, batch: Batch) -> None:
    """One update, each net computing everything by itself where the side is called so."""
    unshared = patch.object(Once, "__call__", lambda once, *source: once.function(*source))
    with unshared if side == UNSHARED else nullcontext():
        trainer._step(batch)


def profile(recipe: str) -> dict[str, dict[str, float]]:
    """Milliseconds of each part by net, and of whole updates, for both sides."""
    loaded, home = load_recipe(recipe, {"data": {"batching": {"workers": 0}}})
    largest = {"nets": "alone", "arch": "largest", "growing": "largest", "students": None, "students_start": 0.0}
    with TemporaryDirectory() as scratch:
        task = Run(Path(scratch), loaded, home).task()
        sides = {
            name: Trainer(task, replace(loaded.training, **changes), Path(scratch), loaded.seed, loaded.dropout)
            for name, changes in (("supernet", {}), (UNSHARED, {}), ("largest alone", largest))
        }
        stream, batches = task.train_batches(FIRST), []
        table = {"data": {"batch": median(timed(lambda: batches.append(next(stream))) for _ in range(BATCHES))}}
        trainer = sides["supernet"]
        nets = {"largest": trainer.space.largest(), "smallest": trainer.space.smallest()}
        for name, arch in nets.items():
            activate(trainer.model, arch)
            rows = [parts(trainer.model.train(), batch) for batch in batches]
            table[name] = {key: median(row[key] for row in rows) for key in rows[0]}
        for name, found in course(sides, batches).items():
            table[name] = {"first update": found[0], "last update": found[-1], "mean update": fmean(found)}
    return table


def main(recipe: str = "digits", out: str | None = None) -> None:
    """Print the table, and write it where asked."""
    table = profile(recipe)
    for name, row in table.items():
        print(f"{name:<26}" + "  ".join(f"{key} {value:.1f} ms" for key, value in row.items()))
    alone = table["largest alone"]["mean update"]
    shared, before = (table[name]["mean update"] / alone for name in ("supernet", UNSHARED))
    print(f"the family costs {shared:.2f} times its largest net alone, {before:.2f} times if its nets share nothing")
    if out is not None:
        write_json(out, {"recipe": recipe, "cpu": cpu_model(), "date": f"{date.today()}", "milliseconds": table})


if __name__ == "__main__":
    main(*sys.argv[1:])
