"""A backend turns a Program into the files of one runtime and loads them back behind the same signature.

Each is a class behind an entry point of the group `todm.backends`, named like the runtime: a package that
declares one adds a runtime.
"""

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from todm.errors import TodmError

if TYPE_CHECKING:
    from todm.export.calibrate import Call
    from todm.program import Methods, Program

Precision = Literal["float", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("float", "int8")


class Backend(Protocol):
    """One runtime. It keeps no state: `export` and `load` meet in the files alone."""

    name: str
    precisions: tuple[Precision, ...]
    """Number formats it writes; a bundle has those of them that are asked for."""
    apart: bool
    """Whether every variant has files of its own, so that one can be exported, and measured, without the others."""

    def export(
        self, program: "Program", folder: Path, precision: Precision, calibration: "Sequence[Call]" = ()
    ) -> dict[str, list[Path]]:
        """Write every file this precision needs below `folder`; returns those of each variant that the runtime serves.

        The files of one variant stand in one folder, and variants may share a file. A bundle asks for float first
        and hands the same `folder` for the others, which may share float's files.
        `calibration` holds calls on real inputs, for backends whose int8 needs ranges.
        """

    def load(
        self, folder: Path, precision: Precision, threads: int = 1, methods: Sequence[str] | None = None
    ) -> "Methods":
        """Load the folder that holds the files of one variant; `methods` names those wanted, by default all."""

    def trace(self, folder: Path, precision: Precision, threads: int, program: dict[str, Any]) -> list[dict[str, Any]]:
        """Every operator of one profiled run: `file`, `method`, `op`, `where` it ran, whether that is `fast`, its `ms`.

        `program` is the signature in bundle.json. A runtime that cannot tell returns nothing, and nothing is claimed.
        """

    def versions(self) -> dict[str, str]:
        """Versions of the packages it needs.

        Raises:
            ImportError: one is missing; `find_backend` says so, and neither `export` nor `load` has to.
        """


def names() -> list[str]:
    """Runtimes that have a backend installed."""
    return sorted(entry_points(group="todm.backends").names)


def find_backend(name: str) -> Backend:
    """The backend of a runtime.

    Raises:
        TodmError: there is none, or a package it needs is not installed.
    """
    if name not in names():
        raise TodmError(f"unknown runtime {name!r}; choose one of: {', '.join(names())}")
    point = entry_points(group="todm.backends")[name]
    try:
        with quiet():
            backend: Backend = point.load()()
            backend.versions()
            return backend
    except ImportError as error:
        extra = f"todm[{name}]" if point.module.startswith("todm.") else point.module.partition(".")[0]
        raise TodmError(f"runtime {name!r} needs {error.name}; type: pip install '{extra}'") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the chatter of exporters and runtimes, Python's and C++'s, off the terminal; exceptions pass."""
    level = logging.root.manager.disable
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    try:
        with (
            tempfile.TemporaryFile() as sink,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            logging.disable(logging.ERROR)
            for descriptor, _ in saved:
                os.dup2(sink.fileno(), descriptor)
            yield
    finally:
        logging.disable(level)
        for descriptor, copy in saved:
            os.dup2(copy, descriptor)
            os.close(copy)
