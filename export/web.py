"""The browser as a runtime: a folder with one page that recognises speech, to be served by any file server.

Static files all: the page (`page/`), the streaming program's ONNX files, and ONNX Runtime's WebAssembly build. The
page asks no other host for anything.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from todm.errors import TodmError
from todm.export.backend import PRECISIONS, Precision
from todm.export.calibrate import Call
from todm.export.onnx import Onnx
from todm.export.onnxruntime_web import PACKAGE, VERSION, runtime_files
from todm.files import atomic_write, write_json
from todm.program import Method, Program

PAGE = Path(__file__).parent / "page"
METHODS = {"encode_chunk", "predict", "join"}
"""What the page calls."""


class Web(Onnx):
    """`web/index.html`, all it needs beside it. `load` runs the same ONNX files in Python."""

    name = "web"
    precisions: tuple[Precision, ...] = ("float", "int8")

    def export(
        self, program: Program, folder: Path, precision: Precision, calibration: Sequence[Call] = ()
    ) -> dict[str, list[Path]]:
        """The files returned are the model's: the page and the runtime are the same for every precision.

        Raises:
            TodmError: the program is not a streaming recogniser, or the runtime cannot be had.
        """
        ways = program.ways().items()
        variant = next((name for name, methods in ways if {method.name for method in methods} == METHODS), None)
        if variant is None or program.seconds is None:
            names = ", ".join(method.name for method in program.methods)
            raise TodmError(f"the page is for streaming recognisers, not for a program with {names}; leave web out")
        home, streaming = folder / self.name, replace(program, methods=program.ways()[variant], variants={})
        for name, content in runtime_files().items():
            atomic_write(home / name, content)
        for path in PAGE.iterdir():
            atomic_write(home / path.name, path.read_bytes())
        paths = _copied(streaming, folder / Onnx.name / variant, home, precision)
        paths = paths or super().export(streaming, folder, precision, calibration)[""]
        write_json(home / "model.json", {"program": streaming.signature(), "files": _files(streaming, home)})
        return {variant: paths}

    def versions(self) -> dict[str, str]:
        """Of the writers and of the runtime in the page."""
        return super().versions() | {PACKAGE: VERSION}


def _copied(program: Program, made: Path, home: Path, precision: Precision) -> list[Path]:
    """The files that the bundle has for ONNX Runtime already; none if it has not."""
    if not made.is_dir() or (precision != "float" and not list(made.glob(f"*.{precision}.onnx"))):
        return []
    sources = [_file(method, made, precision) for method in program.methods]
    return [atomic_write(home / path.name, path.read_bytes()) for path in sources]


def _file(method: Method, home: Path, precision: Precision) -> Path:
    """The file of a method: that of the precision where there is one, else the float file."""
    path = home / f"{method.file}.onnx"
    narrow = path.with_suffix(f".{precision}.onnx")
    return narrow if narrow.exists() else path


def _files(program: Program, home: Path) -> dict[str, Any]:
    """Precision -> method -> file and size_bytes, for every precision written so far."""
    return {
        precision: {
            method.name: {"file": path.name, "size_bytes": path.stat().st_size}
            for method in program.methods
            for path in [_file(method, home, precision)]
        }
        for precision in PRECISIONS
        if precision == "float" or list(home.glob(f"*.{precision}.onnx"))
    }
