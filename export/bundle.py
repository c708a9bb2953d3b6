"""The bundle: a folder with all a device needs, and bundle.json, which describes it and proves it whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from todm import __version__
from todm.errors import TodmError
from todm.export import delegation
from todm.export.backend import PRECISIONS, Backend, Precision, find_backend
from todm.export.card import model_card
from todm.export.runner import way
from todm.files import atomic_write, read_json, sha256, write_json

if TYPE_CHECKING:
    from todm.export.calibrate import Call
    from todm.program import Methods, Program

SCHEMA = 2
MANIFEST = "bundle.json"
CARD = "README.md"


@dataclass
class Bundle:
    """A bundle on disk, its files checked."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def variants(self) -> list[str]:
        """Ways of using the program, the default one first."""
        return list(self.manifest["program"]["variants"])

    def forms(self) -> list[dict[str, Any]]:
        """Every `runtime`, `precision` and `variant` that there are files of."""
        return [
            {"runtime": runtime, "precision": precision, "variant": variant}
            for runtime, entry in self.manifest["runtimes"].items()
            for variant, files in entry["variants"].items()
            for precision in files["files"]
        ]

    def methods(
        self, runtime: str, precision: Precision = "float", threads: int = 1, variant: str | None = None
    ) -> "Methods":
        """Load the exported files of one runtime, for one way of use, by default the first.

        Raises:
            TodmError: the bundle has no such runtime, precision or variant, or its package is not installed.
        """
        self.files(runtime, precision, variant)
        variant = self.variants[0] if variant is None else variant
        folder = self.folder / self.manifest["runtimes"][runtime]["variants"][variant]["folder"]
        return find_backend(runtime).load(folder, precision, threads, self.manifest["program"]["variants"][variant])

    def files(self, runtime: str, precision: Precision = "float", variant: str | None = None) -> list[Path]:
        """All files that a device needs for this runtime, precision and variant, assets included.

        Raises:
            TodmError: the bundle has none.
        """
        if variant is not None and variant not in self.variants:
            raise TodmError(f"{self.folder} has no variant {variant!r}; it has: {', '.join(self.variants)}")
        runtimes = self.manifest["runtimes"]
        wanted = variant or self.variants[0]
        offered = {name: e["variants"][wanted]["files"] for name, e in runtimes.items() if wanted in e["variants"]}
        if precision not in offered.get(runtime, {}):
            listed = ", ".join(f"{name} {'/'.join(files)}" for name, files in offered.items())
            raise TodmError(f"{self.folder} has no {runtime} {precision} files; it has: {listed}")
        return [self.folder / path for path in offered[runtime][precision]]

    def size_bytes(self, runtime: str, precision: Precision = "float", variant: str | None = None) -> int:
        """Bytes of `files`."""
        return sum(path.stat().st_size for path in self.files(runtime, precision, variant))

    def delegation(self, runtime: str, precision: Precision) -> list[dict[str, Any]]:
        """What runs where, a row for each file, from a traced run on this machine; none if the runtime cannot tell."""
        self.files(runtime, precision)
        rows = []
        traced: set[tuple[Path, str]] = set()
        for variant, entry in self.manifest["runtimes"][runtime]["variants"].items():
            folder = self.folder / entry["folder"]
            program = way(self.manifest["program"], variant)
            program["methods"] = [each for each in program["methods"] if (folder, each["name"]) not in traced]
            traced |= {(folder, each["name"]) for each in program["methods"]}
            operators = find_backend(runtime).trace(folder, precision, 1, program)
            where = {"runtime": runtime, "precision": precision, "variant": variant}
            rows += [where | row for row in delegation.summarise(operators)]
        return rows

    def record(self, files: Mapping[str, bytes] | None = None, **parts: Any) -> None:
        """Add to bundle.json (`metrics`, `parity`, `measurements`, ...) and write the model card anew.

        A list is appended to, anything else replaces what was there. `files` are added to the folder by name, or
        replace those of that name. Writing bundle.json is what makes it so: the files are written beside their places
        before, and moved there after, by whoever opens the bundle next if this process is killed.
        """
        for key, value in parts.items():
            old = self.manifest.get(key)
            self.manifest[key] = [*old, *value] if isinstance(old, list) else value
        new = dict(files or {})
        self.manifest["files"] = {name: entry for name, entry in self.manifest["files"].items() if name != CARD}
        for name, content in new.items():
            self.manifest["files"][name] = _described(content)
        new[CARD] = model_card(self.manifest).encode()
        self.manifest["files"][CARD] = _described(new[CARD])
        self.manifest["seal"] = _seal(self.manifest)
        for name, content in new.items():
            atomic_write(_next(self.folder / name), content)
        write_json(self.folder / MANIFEST, self.manifest)
        for name in new:
            _next(self.folder / name).replace(self.folder / name)


def write_bundle(
    folder: Path | str,
    program: "Program",
    *,
    name: str,
    arch: Mapping[str, int],
    params: int,
    macs: int,
    metrics: Mapping[str, float],
    data: Mapping[str, str],
    task: str = "",
    runtimes: Sequence[str] = ("onnx", "executorch"),
    precisions: Sequence[Precision] = PRECISIONS,
    calibration: "Sequence[Call]" = (),
    delegated: float = 1.0,
    kept: "Mapping[str, Collection[str]] | None" = None,
    before: Bundle | None = None,
) -> Bundle:
    """Export a program to every runtime and precision. The folder appears when it is complete.

    Args:
        folder: where to; a bundle that is there already is replaced, anything else is an error.
        name: of the model, for its card.
        params, macs: parameters, and multiply-accumulates of one call of the main method.
        metrics: of the PyTorch subnet, the one that counts first, e.g. `{"wer": 2.1}`.
        data: `name` and `license` of the data it was trained on, and what else is worth saying.
        task: Hugging Face pipeline tag, e.g. `automatic-speech-recognition`.
        kept: linear layers that each runtime's int8 leaves in float, named as `quantize.layers` does.
        delegated: share of the matrix operators that must run on the accelerated path of each runtime.
        before: a bundle of the same program, of which what `kept` does not change is taken over, not exported again.

    Raises:
        TodmError: see the backends; matrix work is left to slow kernels; or the folder cannot be written.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not (folder / MANIFEST).exists():
        raise TodmError(f"{folder} exists and is not a bundle; remove it or choose another folder with --out")
    backends = [find_backend(runtime) for runtime in runtimes]
    building, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        building.mkdir(parents=True)
        bundle = Bundle(
            building,
            {
                "schema": SCHEMA,
                "todm": __version__,
                "name": name,
                "task": task,
                "arch": dict(arch),
                "params": params,
                "macs": macs,
                "metrics": dict(metrics),
                "data": dict(data),
                "program": program.signature(),
                "runtimes": {
                    each.name: _export(
                        each, program, building, precisions, calibration, (kept or {}).get(each.name, ()), before
                    )
                    for each in backends
                },
                "parity": [],
                "measurements": [],
            },
        )
        paths = sorted(path for path in building.rglob("*") if path.is_file())
        bundle.manifest["files"] = {str(path.relative_to(building)): _entry(path) for path in paths}
        forms = dict.fromkeys((form["runtime"], form["precision"]) for form in bundle.forms())
        rows = [row for form in forms for row in bundle.delegation(*form)]
        delegation.check(rows, delegated)
        bundle.record(delegated=delegated, delegation=rows)
        if folder.exists():
            folder.rename(old)
        building.rename(folder)
    except OSError as error:
        raise TodmError(f"cannot write {folder}: {error.strerror}; choose another folder with --out") from error
    finally:
        for leftover in (building, old):
            shutil.rmtree(leftover, ignore_errors=True)
    return Bundle(folder, bundle.manifest)


def _export(
    backend: Backend,
    program: "Program",
    root: Path,
    precisions: Sequence[Precision],
    calibration: "Sequence[Call]",
    kept: "Collection[str]",
    before: Bundle | None,
) -> dict[str, Any]:
    """Every precision that one runtime has, its assets beside it. Paths are relative to the bundle."""
    asked, precisions = precisions, [precision for precision in precisions if precision in backend.precisions]
    if not precisions:
        raise TodmError(f"{backend.name} writes {', '.join(backend.precisions)}, not {', '.join(asked)}")
    written: dict[Precision, Mapping[str, Sequence[Path]]] = {}
    known = before.manifest["runtimes"].get(backend.name) if before else None
    if before and known:
        same = precisions if known["float_layers"] == sorted(kept) else [p for p in precisions if p == "float"]
        written = {precision: _copied(before, known, precision, root, program.assets) for precision in same}
    if kept:
        from todm.export.quantize import keeping  # imports torch, which opening a bundle must not wait for

        program = keeping(program, kept)
    for precision in precisions:
        if precision not in written:
            written[precision] = backend.export(program, root, precision, calibration)
    variants = {}
    for variant in written[precisions[0]]:
        files = {precision: list(written[precision][variant]) for precision in precisions}
        home = files[precisions[0]][0].parent
        assets = [atomic_write(home / name, content) for name, content in program.assets.items()]
        variants[variant] = {
            "folder": str(home.relative_to(root)),
            "files": {
                precision: [str(path.relative_to(root)) for path in (*paths, *assets)]
                for precision, paths in files.items()
            },
        }
    return {
        "variants": variants,
        "float_layers": sorted(kept),
        "versions": backend.versions(),
    }


def _copied(
    before: Bundle, runtime: Mapping[str, Any], precision: Precision, root: Path, assets: "Collection[str]"
) -> dict[str, list[Path]]:
    """The files of one precision from another bundle of the same program, by variant as `Backend.export` gives them."""
    found: dict[str, list[Path]] = {}
    for variant, entry in runtime["variants"].items():
        names = [name for name in entry["files"][precision] if Path(name).name not in assets]
        found[variant] = [atomic_write(root / name, (before.folder / name).read_bytes()) for name in names]
    return found


def publish(bundle: Bundle, folder: Path) -> Bundle:
    """Move a bundle to where it is looked for, in place of the one that was there."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    bundle.folder.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return Bundle(folder, bundle.manifest)


def load_bundle(folder: Path | str) -> Bundle:
    """Open a bundle and check every file of it.

    Raises:
        TodmError: it is not a bundle, is of a schema this version does not know, or a file of it is missing,
            damaged or edited.
    """
    folder = Path(folder)
    again = "export it again with: todm export SUBNET"
    if not (folder / MANIFEST).is_file():
        raise TodmError(f"{folder} is not a bundle (it has no {MANIFEST}); make one with: todm export SUBNET")
    manifest = read_json(folder / MANIFEST)
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise TodmError(f"{folder / MANIFEST} has schema {schema}, this todm reads {SCHEMA}; {again}")
    if manifest.get("seal") != _seal(manifest):
        raise TodmError(f"{folder / MANIFEST} was damaged or edited; {again}")
    for name, entry in manifest["files"].items():
        path = folder / name
        if _next(path).is_file() and _entry(_next(path)) == entry:
            _next(path).replace(path)  # `record` was killed before it came to this
        if not path.is_file():
            raise TodmError(f"{path} is missing; {again}")
        if path.stat().st_size != entry["size_bytes"] or sha256(path) != entry["sha256"]:
            raise TodmError(f"{path} was damaged or edited: it is not the file that was exported; {again}")
    return Bundle(folder, manifest)


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": sha256(path), "size_bytes": path.stat().st_size}


def _described(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def _next(path: Path) -> Path:
    """Where the new content of a file waits for bundle.json to name it."""
    return path.with_name(f".{path.name}.next")


def _seal(manifest: Mapping[str, Any]) -> str:
    """Checksum of the manifest itself, over all but this entry."""
    rest = {key: value for key, value in manifest.items() if key != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
