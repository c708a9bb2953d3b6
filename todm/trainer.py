"""The training loop: device, precision, schedule, checkpoints, log and progress bar."""

import dataclasses
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from todm import dropout
from todm.averages import keep_best, running_average, window_average
from todm.checkpoint import list_checkpoints, newest_checkpoint, save_checkpoint
from todm.distill import divergence
from todm.distributed import WHOLE, Shard, sum_gradients, totals
from todm.errors import TodmError
from todm.journal import Journal
from todm.optim.make import make_optimizer, make_schedule, step
from todm.recipe import Training
from todm.sandwich import accumulate_gradients, in_turn, sandwich
from todm.space import Arch, SearchSpace, activate
from todm.task import LossOutput, Task

PATIENCE = 20
"""Updates in a row without a finite gradient before training gives up."""


class Trainer:
    """Trains the supernet of a task in a run folder.

    Every random number of an update is drawn from a generator seeded with (seed, update), and the data from
    (seed, batch index): a run that was killed and resumed computes what an undisturbed one does.

    Args:
        task: Model and data.
        config: How to train.
        folder: The run folder; checkpoints/, log.jsonl and tensorboard/ are written in it.
        seed: Of everything random.
        block: The recipe's `dropout:` block, installed in the model.
        shard: Which of several processes this is; the first one writes.
    """

    def __init__(
        self, task: Task, config: Training, folder: Path, seed: int, block: dict[str, dict[str, Any]] | None = None,
        shard: Shard = WHOLE,
    ) -> None:  # fmt: skip
        self.task, self.config, self.folder, self.seed, self.shard = task, config, folder, seed, shard
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(seed)
        self.model = task.build()
        dropout.install(self.model, block or {})
        self.model.to(self.device)
        self.rates = dropout.Rates(self.model, total=config.updates)
        self.space = SearchSpace.of(self.model)
        try:
            self.alone = self.space.named(config.arch) if config.arch is not None else None
        except ValueError as error:
            raise TodmError(f"training.arch: {error}") from None
        self.average = running_average(self.model, config.average)
        self.window = window_average(self.model) if config.average and config.window else None
        self.optimizer = make_optimizer(self.model.parameters(), config)
        self.schedule = make_schedule(self.optimizer, config)
        self.divergence = divergence("kl" if config.divergence == "none" else config.divergence)
        self.update = 0

    def resume(self) -> list[str]:
        """Go on from the newest readable checkpoint; returns warnings about newer ones that are damaged."""
        state, warnings = newest_checkpoint(self.folder / "checkpoints")
        if state["config"] != dataclasses.asdict(self.config):  # type: ignore[call-overload]
            raise TodmError(f"{self.folder} was trained with other settings; choose another folder with --out")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        if self.window is not None:
            self.window.load_state_dict(state["window"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.rates.load_state_dict(state["rates"])
        self.update = state["update"]
        return warnings

    def fit(self) -> nn.Module:
        """Train up to the configured number of updates; returns the averaged supernet."""
        if self.update < self.config.updates:
            try:
                first = self.shard.rank == 0
                with Journal(self.folder, self.update, self.config.updates) if first else nullcontext() as journal:
                    try:
                        self._loop(journal)
                    except (RuntimeError, OSError, EOFError) as error:
                        if _loader_died(error):
                            _ignore_children()
                        raise
            except KeyboardInterrupt:
                self._save()
                print(f"\nstopped at update {self.update}; go on with --resume auto", file=sys.stderr)
                raise
            except (RuntimeError, OSError, EOFError) as error:
                # In the middle of an update, for all we know: torch raises it where the signal finds it.
                if not _loader_died(error):
                    raise
                raise TodmError(
                    f"a process that prepares batches has died, after update {self.update} (is there memory enough?); "
                    "go on with --resume auto"
                ) from error
        return self.average.module

    def _loop(self, journal: Journal | None) -> None:
        config, skipped, waiting, start = self.config, 0, 0.0, time.perf_counter()
        several = self.shard.world > 1
        batches = self.task.train_batches(self.update, self.shard) if several else self.task.train_batches(self.update)
        while self.update < config.updates:
            asked = time.perf_counter()
            batch = next(batches)
            waiting += time.perf_counter() - asked
            with _uninterrupted():
                row = self._step(batch)
                extra = getattr(batch, "log", None)
                if isinstance(extra, dict):  # a tensor has a log of another kind
                    row |= extra
                skipped = skipped + 1 if row["skipped"] else 0
                if skipped >= PATIENCE:
                    raise TodmError(f"{PATIENCE} updates in a row without a finite gradient; lower --training.lr")
                row["seconds"] = round(time.perf_counter() - start, 3)
                row["waiting"] = round(waiting / max(row["seconds"], 1e-9), 4)
                if self.update == config.updates and self.window is not None:
                    row["average"] = self._keep_best_average(self.window.module)
                if self.update % config.evaluate_every == 0 or self.update == config.updates:
                    row["dev"] = errors = self.evaluate()
                    self.rates.observe(next(iter(next(iter(errors.values())).values())))
                if journal is not None:
                    journal.write(row)
                if self.update % config.checkpoint_every == 0 or self.update == config.updates:
                    if journal is not None:
                        journal.flush()
                    self._save()

    def _step(self, batch: Any) -> dict[str, Any]:
        """One update; returns what is logged of it."""
        config, rng = self.config, random.Random(f"{self.seed} {self.update}")
        torch.manual_seed(rng.getrandbits(63) ^ self.shard.rank)
        progress = self.update / config.updates
        archs = self._archs(progress, rng)
        ramp = min(max((progress - config.distillation_start) / 0.1, 0.0), 1.0)
        strength = config.distillation * ramp if config.distils else 0.0
        count = 1.0

        def loss(model: nn.Module, batch: Any) -> LossOutput:
            nonlocal count
            output = self.task.loss(model, batch)
            count = output.count
            return output

        self.model.train()
        self.rates.step(self.update)
        self.optimizer.zero_grad()
        self.schedule.step_batch(self.update)
        with torch.autocast(self.device, torch.bfloat16, enabled=config.precision == "bfloat16"):
            teacher = None
            if config.teacher == "average" and strength > 0:
                activate(self.average.module, next(iter(archs.values())))
                with torch.no_grad():
                    teacher = self.task.loss(self.average.module.eval(), batch).detach()
            row: dict[str, Any] = accumulate_gradients(
                self.model, loss, batch, archs, self.divergence, strength, teacher
            )
        if self.shard.world > 1:
            (whole,) = totals([count])
            sum_gradients(self.model, count / whole)
            row = dict(zip(row, totals([value * count / whole for value in row.values()]), strict=True))
        taken = step(self.optimizer)
        learning_rate = self.optimizer.param_groups[0]["lr"]
        if taken:
            dropout.after_step(self.model, self.optimizer)
        self.average.update_parameters(self.model)
        if self.window is not None and progress >= 1 - config.window:
            self.window.update_parameters(self.model)
        self.update += 1
        row |= {f"rate/{site}": rate for site, rate in self.rates.values().items()}
        return {"update": self.update, **row, "lr": learning_rate, "skipped": int(not taken)}

    def _archs(self, progress: float, rng: random.Random) -> dict[str, Arch]:
        """The architectures of one update."""
        config, young = self.config, progress < self.config.growth
        space = self.space.young() if young else self.space
        if self.alone is not None:
            return {"alone": space.within(self.alone)}
        if young and config.growing == "largest":
            return {"largest": space.largest()}
        if config.nets == "random":
            return {f"random_{index}": space.sample(rng) for index in range(2 + config.random_nets)}
        if not young and progress < config.students_start:
            return {"largest": space.largest()}
        archs = sandwich(space, rng, 0 if young else config.random_nets)
        students = 0.5 if young else config.students
        return archs if students is None else in_turn(archs, students, self.update)

    def evaluated(self) -> dict[str, Arch]:
        """The architectures that are evaluated: the net trained alone, else the ends of the family."""
        if self.alone is not None:
            return {"alone": self.alone}
        return {"largest": self.space.largest(), "smallest": self.space.smallest()}

    def evaluate(self, split: str = "dev", model: nn.Module | None = None) -> dict[str, dict[str, float]]:
        """Metrics of the averaged weights, or of another model's, for each of `evaluated`."""
        model, result = self.average.module if model is None else model, {}
        for name, arch in self.evaluated().items():
            activate(model, arch)
            result[name] = self.task.evaluate(model.eval(), split)
        return result

    def _keep_best_average(self, window: nn.Module) -> str:
        """Deploy the running average, the window's or the last weights: what errs least on the dev set."""
        candidates = {"running": self.average.module, "window": window, "last": self.model}

        def error(model: nn.Module) -> float:
            return sum(next(iter(metrics.values())) for metrics in self.evaluate("dev", model).values())

        return keep_best(self.average.module, candidates, error)

    def _save(self) -> None:
        if self.shard.rank > 0:
            return
        state = {
            "update": self.update,
            "config": dataclasses.asdict(self.config),  # type: ignore[call-overload]
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "window": {} if self.window is None else self.window.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rates": self.rates.state_dict(),
        }
        save_checkpoint(self.folder / "checkpoints", self.update, state)


def _loader_died(error: Exception) -> bool:
    """Whether a process that prepares batches was killed: torch says so, or the socket that its batches come by."""
    if isinstance(error, OSError):
        # Of its socket, which has no file name, not of a file of the run's.
        return isinstance(error, ConnectionError) or (isinstance(error, FileNotFoundError) and error.filename is None)
    return isinstance(error, EOFError) or str(error).startswith("DataLoader worker (pid")


def _ignore_children() -> None:
    """What torch has told, be it as a lost socket, it must not raise once more while all is being closed."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back to the end of the block: half an update must not be saved, nor a writer's thread left locked."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where signals do not arrive
        return
    held: list[tuple[int, FrameType | None]] = []
    handler = signal.signal(signal.SIGINT, lambda *arguments: held.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held and callable(handler):
        handler(*held[0])


def is_trained(folder: Path, config: Training) -> bool:
    """Whether a run folder holds the checkpoint of the last update."""
    files = list_checkpoints(folder / "checkpoints")
    return bool(files) and files[-1].stem == f"update-{config.updates:07d}"
