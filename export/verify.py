"""Is a bundle what it says it is? Checksums, parity with PyTorch on the calls it carries, and delegation."""

from pathlib import Path
from typing import Any

from todm.errors import TodmError
from todm.export import delegation
from todm.export.bundle import Bundle, load_bundle
from todm.export.proof import replay
from todm.export.runner import PROOF

FLOAT = 1e-3
"""Largest relative difference of a float file from PyTorch."""
INT8 = 2.0
"""How many times as far as at export an int8 file may be off: its kernels round differently on other processors."""


def verify(folder: Path | str) -> dict[str, Any]:
    """Check a bundle. `breaches` is a list of sentences, empty where all is well.

    Raises:
        TodmError: it is no bundle, a file of it was damaged or edited, or a runtime it is for is not installed.
    """
    bundle = load_bundle(folder)
    result: dict[str, Any] = {
        "bundle": str(folder),
        "files": len(bundle.manifest["files"]),
        "parity": [],
        "delegation": [],
    }
    breaches: list[str] = []
    if (bundle.folder / PROOF).exists():
        result["parity"] = _parity(bundle, breaches)
    for runtime, precision in dict.fromkeys((form["runtime"], form["precision"]) for form in bundle.forms()):
        try:
            rows = bundle.delegation(runtime, precision)
            delegation.check(rows, bundle.manifest["delegated"])
            result["delegation"] += rows
        except TodmError as error:
            breaches.append(str(error))
    return result | {"breaches": breaches}


def _parity(bundle: Bundle, breaches: list[str]) -> list[dict[str, Any]]:
    keys = ("runtime", "precision", "variant", "method")
    before = {tuple(row[key] for key in keys): row["max_rel"] for row in bundle.manifest["proof"]}
    rows = [row for form in bundle.forms() for row in replay(bundle, **form)]
    for row in rows:
        limit = FLOAT if row["precision"] == "float" else max(FLOAT, INT8 * before[tuple(row[key] for key in keys)])
        row["limit"] = limit
        if row["max_rel"] > limit:
            breaches.append(
                f"parity is broken: {row['method']} of {row['runtime']} {row['precision']} is {row['max_rel']:.2g} off "
                f"PyTorch, more than {limit:.2g}"
            )
    return rows


def as_text(result: dict[str, Any]) -> str:
    """A line for each check that passed."""
    lines = [f"{result['files']} files have their checksums"]
    for row in result["parity"]:
        form = " ".join(filter(None, (row["runtime"], row["precision"], row["variant"])))
        lines.append(f"{form} {row['method']}: {row['max_rel']:.2g} off PyTorch, {row['limit']:.2g} allowed")
    return "\n".join([*lines, delegation.text(result["delegation"])])
