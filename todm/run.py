"""The run folder: what was asked, where it was made, and what every verb adds to it."""

import dataclasses
import fcntl
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from todm.errors import TodmError
from todm.files import atomic_write, cache_folder, read_json, write_json
from todm.recipe import Recipe, as_yaml, build, merged, read_yaml, task_class

PACKAGES = (
    "todm", "torch", "numpy", "onnx", "onnxruntime", "executorch", "torchao", "lhotse", "optuna", "scikit-learn",
    "kaldi-native-fbank",
)  # fmt: skip


class Run:
    """A folder that holds everything about one trained supernet.

    Args:
        path: The folder.
        recipe: What was asked.
        home: Folder the recipe came from, where its `task.py` may stand.
    """

    def __init__(self, path: Path, recipe: Recipe, home: Path) -> None:
        self.path, self.recipe, self.home = path, recipe, home
        self._task: Any = None

    @classmethod
    def create(cls, path: Path, recipe: Recipe, home: Path, resume: str) -> "Run":
        """Make the folder, or take up an existing one.

        Args:
            resume: `auto` goes on with a folder of the same recipe, `never` insists on a new one.

        Raises:
            TodmError: the folder is in use by another recipe, exists with `never`, or cannot be written; or what
                `task` raises, before anything is written.
        """
        if (path / "recipe.yaml").exists():
            existing = cls.open(path)
            if resume == "never":
                raise TodmError(f"{path} holds a run already; go on with --resume auto, or choose another --out")
            if existing.recipe != recipe:
                raise TodmError(f"{path} was made with other settings; type the same ones or choose another --out")
            return existing
        run = cls(path, recipe, home)
        run.task()
        run.note(name=recipe.name, home=os.path.abspath(home), seed=recipe.seed, **_provenance())
        # Last, because it is what makes the folder a run.
        atomic_write(path / "recipe.yaml", as_yaml(recipe))
        return run

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """Read an existing run.

        Raises:
            TodmError: not a run folder, or a damaged one.
        """
        path = Path(path)
        if not (path / "recipe.yaml").is_file():
            raise TodmError(f"{path} is not a run folder: no recipe.yaml in it; make one with `todm run digits`")
        recipe = build(Recipe, read_yaml(path / "recipe.yaml"), str(path / "recipe.yaml"))
        info = read_json(path / "run.json")
        if not isinstance(info, dict) or not isinstance(info.get("home"), str):
            raise TodmError(f"{path / 'run.json'} was damaged or edited: it does not say where the recipe came from")
        return cls(path, recipe, Path(info["home"]))

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json."""
        path = self.path / "run.json"
        return read_json(path) if path.exists() else {}

    @property
    def metric(self) -> str:
        """Name of the task's first metric; known once the run is trained."""
        return str(self.info.get("metric", "wer"))

    @property
    def searched(self) -> str:
        """Name of what search minimises: that metric, or the same in int8, e.g. wer_int8."""
        return self.metric if self.recipe.search.precision == "float" else f"{self.metric}_int8"

    def note(self, **facts: Any) -> None:
        """Add facts to run.json."""
        write_json(self.path / "run.json", self.info | facts)

    def adjusted(self, over: dict[str, Any]) -> "Run":
        """The same run with some settings of its recipe changed, for what comes after training; nothing is written.

        Raises:
            TodmError: a setting is unknown or wrong.
        """
        values = merged(dataclasses.asdict(self.recipe), over)  # type: ignore[call-overload]
        return Run(self.path, build(Recipe, values, f"recipe {self.recipe.name!r}"), self.home)

    def task(self) -> Any:
        """The task of the recipe, with its options checked.

        Raises:
            TodmError: the task cannot be loaded, or an option of its data or model is wrong.
        """
        if self._task is None:
            kind, where = task_class(self.recipe, self.home), f"recipe {self.recipe.name!r}"
            data = build(kind.Data, self.recipe.data, f"{where}: data")
            model = build(kind.Model, self.recipe.model, f"{where}: model")
            self._task = kind(data, model, self.recipe.seed, cache_folder())
        return self._task

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing to the folder at the same time.

        Raises:
            TodmError: another process is at work in it.
        """
        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise TodmError(f"another process is at work in {self.path}; wait for it or stop it") from None
            yield

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of a stage to run.json."""
        start = time.perf_counter()
        yield
        seconds = self.info.get("seconds", {})
        self.note(seconds=seconds | {stage: round(seconds.get(stage, 0) + time.perf_counter() - start, 1)})


def installed() -> dict[str, str]:
    """Versions of the packages that matter, where they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """Model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _provenance() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "os": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": installed(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
        "git_commit": commit.stdout.strip() or None,
    }
