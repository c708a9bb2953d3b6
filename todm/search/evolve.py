"""Evolutionary search for the best subnets within a budget: NSGA-II (Deb et al. 2002), by Optuna."""

import math
import random
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from todm.errors import TodmError
from todm.search.budget import Budget
from todm.search.front import Candidate, pareto_front
from todm.search.spread import arch_key, ladder
from todm.space import Arch, SearchSpace

Costs = Callable[[Arch], dict[str, float]]


def evolve(
    space: SearchSpace, error: Callable[[Arch], float], costs: Costs, budget: Budget, *,
    storage: Path | str, study: str, trials: int = 60, seed: int = 0, objectives: Sequence[str] = (),
    error_name: str = "wer", progress: Callable[[int, int, Candidate], None] | None = None,
) -> list[Candidate]:  # fmt: skip
    """Evaluate the smallest, the largest, evenly spaced and then ever better networks within the budget.

    Ends with `trials` of them, or when none is left. A killed search goes on where it was; several processes
    may share one. No network is evaluated twice: what other searches of this `storage` and `study` found, for
    whatever budget, is not a trial but is used here.

    Args:
        error: What is minimised, called `error_name` in budgets; expensive.
        costs: Further metrics by name, known or predicted; cheap.
        storage: SQLite file, or the address of a database that Optuna knows, e.g. postgresql+psycopg://host/name.
        study: Names all that `error` depends on: the checkpoint's fingerprint, the data.
        objectives: Costs minimised beside the error; by default those the budget names, else `params`.
        progress: Called with (evaluated, trials, candidate) after each evaluation.

    Returns:
        All candidates ever evaluated, also those outside the budget.

    Raises:
        TodmError: the storage cannot be used, a limit's metric is not among `costs`, an error is not finite.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    population = min(max(trials // 8, 8), 40)
    sampler = _Sampler(space, costs, budget, error_name, seed, population)
    objectives = objectives or tuple(sampler.affordable.limits) or ("params",)
    with _database(storage) as database:
        for name in optuna.get_all_study_names(database):
            if name.startswith(f"{study}: "):
                sampler.learn(optuna.load_study(study_name=name, storage=database))
        front = pareto_front(list(sampler.known.values()), objectives)
        best = sorted(sampler.known.values(), key=lambda c: (sum(sampler.excess(c).values()), c not in front))
        sampler.first = [candidate.arch for candidate in best[:population]] + ladder(space, 6)
        shared = optuna.create_study(
            study_name=f"{study}: {error_name},{','.join(objectives)} {budget}", storage=database,
            directions=["minimize"] * (1 + len(objectives)), sampler=sampler, load_if_exists=True,
        )  # fmt: skip
        refused = 0
        while refused < 5:  # After several proposals in a row that are taken, nothing new fits.
            evaluated = sum("reused" not in trial.user_attrs for trial in _finished(shared.get_trials(False)))
            if evaluated >= trials:
                break
            trial = shared.ask(sampler.distributions)
            key = arch_key(arch := space.canonical(trial.params))
            if key in sampler.taken(shared, trial.number):
                shared.tell(trial, state=TrialState.FAIL)
                refused += 1
                continue
            refused, reused = 0, key in sampler.known
            try:
                if reused:
                    trial.set_user_attr("reused", True)
                elif math.isfinite(value := float(error(arch))):
                    sampler.known[key] = Candidate(arch, value, costs(arch))
                else:
                    raise TodmError(f"the {error_name} of {arch} is {value}; search from another checkpoint")
            except BaseException:
                shared.tell(trial, state=TrialState.FAIL)
                raise
            candidate = sampler.known[key]
            shared.tell(trial, [candidate.error, *(candidate.costs[name] for name in objectives)])
            if progress is not None and not reused:
                progress(evaluated + 1, trials, candidate)
        sampler.learn(shared)
    return list(sampler.known.values())


def _finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


class _Sampler(optuna.samplers.NSGAIISampler):
    """Optuna keeps the generations and selects the parents; `propose` makes a new network of them."""

    def __init__(
        self, space: SearchSpace, costs: Costs, budget: Budget, error_name: str, seed: int, population: int
    ) -> None:
        self.space, self.costs, self.budget = space, costs, budget
        self.error_name, self.seed, self.number = error_name, seed, 0
        self.affordable = budget.without(error_name)
        self.affordable.violations(costs(space.smallest()))
        options = space.choices.items()
        self.distributions: dict[str, BaseDistribution] = {n: CategoricalDistribution(o) for n, o in options}
        self.known: dict[str, Candidate] = {}
        self.first: list[Arch] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().__init__(
                population_size=population, child_generation_strategy=self.propose,
                constraints_func=self.constraints if budget.limits else None,
            )  # fmt: skip

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return self.distributions

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> Arch:
        self.number = trial.number
        return super().sample_relative(study, trial, search_space) or self.propose(study, search_space, [])

    def constraints(self, trial: FrozenTrial) -> list[float]:
        excess = self.excess(self.known[arch_key(self.space.canonical(trial.params))])
        return [excess.get(name, 0.0) for name in self.budget.limits]

    def excess(self, candidate: Candidate) -> dict[str, float]:
        return self.budget.violations(candidate.costs | {self.error_name: candidate.error})

    def learn(self, study: optuna.Study) -> None:
        """Take over what a study has evaluated."""
        for trial in _finished(study.get_trials(False)):
            key = arch_key(arch := self.space.canonical(trial.params))
            if key not in self.known:
                self.known[key] = Candidate(arch, trial.values[0], self.costs(arch))

    def taken(self, study: optuna.Study, number: int) -> set[str]:
        """What the study has evaluated, or another worker than that of trial `number` is evaluating."""
        trials = study.get_trials(False)
        longest = max((t.duration for t in _finished(trials) if t.duration), default=timedelta(seconds=6))
        # A killed worker's trial runs for ever: its claim lapses once it took far longer than any other.
        lapsed = datetime.now() - max(10 * longest, timedelta(seconds=10))
        running = [t for t in trials if not t.state.is_finished() and (t.datetime_start or lapsed) > lapsed]
        return {
            arch_key(self.space.canonical(trial.params))
            for trial in _finished(trials) + running
            # A trial just begun does not hold all its choices yet.
            if trial.number != number and len(trial.params) == len(self.distributions)
        }

    def propose(self, study: optuna.Study, space: dict[str, Any], parents: list[FrozenTrial]) -> Arch:
        """A network not looked at yet, of costs within the budget; if none is found, one that is taken."""
        taken = self.taken(study, self.number)
        for arch in self.first:
            if arch_key(arch) not in taken:
                return arch
        rng = random.Random(f"{self.seed} {self.number}")
        smallest = arch = self.space.canonical(self.space.smallest())
        choices = self.space.choices.items()
        pool = [parent.params for parent in parents]
        pool = pool or [c.arch for c in self.known.values() if not self.affordable.violations(c.costs)]
        heavy, heavies = False, 0
        for attempt in range(100):
            if heavy:  # Some of its choices go down a step, until it fits: the best networks just do.
                down = {name: options.index(arch[name]) - (rng.random() < 0.3) for name, options in choices}
                arch = {name: options[max(down[name], 0)] for name, options in choices}
            elif pool and attempt < 50:
                arch = self.space.crossover(rng.choice(pool), rng.choice(pool), rng)
                arch = self.space.mutate(arch, rng, 0.1)
            else:
                arch = self.space.sample(rng)
            key = arch_key(arch := self.space.canonical(arch))
            new = key not in taken and key not in self.known
            heavy = new and bool(self.affordable.violations(self.costs(arch)))
            if new and not heavy:
                return arch
            heavies += heavy
            if heavies == 16:
                break
        return smallest


class _Connection(sqlite3.Connection):
    """Does not wait for the disk at each trial; a crash may lose the last ones, never the file."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("pragma journal_mode = wal")
        self.execute("pragma synchronous = normal")


@contextmanager
def _database(path: Path | str) -> Iterator[optuna.storages.RDBStorage]:
    storage, address, options, name = None, str(path), None, str(path)
    mend = "start the server, mend search.storage, or install its driver, e.g. pip install 'psycopg[binary]'"
    if isinstance(path, Path):
        mend = "make it writable or delete it"
        with suppress(OSError):  # SQLite then says that it cannot open the file.
            path.parent.mkdir(parents=True, exist_ok=True)
        address, options = f"sqlite:///{path}", {"connect_args": {"timeout": 60, "factory": _Connection}}
    try:
        for patience in (0.1, 0.3, 1.0, None):
            try:
                storage = optuna.storages.RDBStorage(address, options)
                break
            except SQLAlchemyError:  # Another worker may be creating the same tables.
                if patience is None:
                    raise
                time.sleep(patience)
        assert storage is not None
        yield storage
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        reason: BaseException = error
        while reason.__cause__:
            reason = reason.__cause__
        if "full" in str(reason):
            mend = "make room, then search again"
        if not isinstance(path, Path):
            with suppress(SQLAlchemyError):
                name = make_url(address).render_as_string(hide_password=True)
        raise TodmError(f"cannot use {name}: {' '.join(str(reason).split())}; {mend}") from error
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()
