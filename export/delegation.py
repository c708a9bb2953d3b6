"""No silent fallback: which operators of a file run on the accelerated path, and what the others cost.

Read off a traced run of the exported file itself: ONNX Runtime's profiler, ExecuTorch's event tracer. Accelerated is
what the runtime was asked to use: XNNPACK in ExecuTorch, the execution provider in ONNX Runtime (whose CPU provider
has a kernel for every operator or refuses to load, so that the interesting number there is `matrix_integer`).
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from todm.errors import TodmError

MATRIX = re.compile(
    r"matmul|gemm|conv(?!ert)|matrix multiply|fully connected|\blinear|\b(?:add|b|badd)?mm\b|attention", re.I
)
"""Operators that do matrix work, as ONNX Runtime, XNNPACK and ExecuTorch's own kernels name them."""
INTEGER = re.compile(r"integer|nbits|quantize|qlinear|qgemm|\bQ[A-Z]*[48]", re.I)
"""Of those, the ones that multiply integers."""


def summarise(operators: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each file of a trace: shares of nodes and of time on the accelerated path, and what stayed behind.

    `nodes` and `time` are of all operators, `matrix_nodes` and `matrix_accelerated` (a share of nodes) of those that do
    matrix work, `matrix_integer` is the share of their time in integer arithmetic. A share of nothing is 1.
    """
    files: dict[str, list[dict[str, Any]]] = {}
    for operator in operators:
        files.setdefault(operator["file"], []).append(operator)
    return [_row(file, mine) for file, mine in files.items()]


def _row(file: str, operators: Sequence[dict[str, Any]]) -> dict[str, Any]:
    matrix = [operator for operator in operators if MATRIX.search(operator["op"])]
    fast, total = [o for o in operators if o["fast"]], sum(o["ms"] for o in operators)
    groups: dict[str, list[dict[str, Any]]] = {}
    for operator in operators:
        if not operator["fast"]:
            groups.setdefault(f"{operator['method']}: {operator['op']}", []).append(operator)
    behind = [
        {
            "what": what,
            "nodes": len(same),
            "time": _share(sum(o["ms"] for o in same), total, 0.0),
            "matrix": same[0] in matrix,
        }
        for what, same in groups.items()
    ]
    integer = sum(o["ms"] for o in matrix if INTEGER.search(o["op"]))
    return {
        "file": file,
        "nodes": len(operators),
        "nodes_accelerated": _share(len(fast), len(operators)),
        "time_accelerated": _share(sum(o["ms"] for o in fast), total),
        "matrix_nodes": len(matrix),
        "matrix_accelerated": _share(sum(o["fast"] for o in matrix), len(matrix)),
        "matrix_integer": _share(integer, sum(o["ms"] for o in matrix), 0.0),
        "behind": sorted(behind, key=lambda entry: -entry["time"]),
    }


def _share(part: float, whole: float, nothing: float = 1.0) -> float:
    return round(part / whole, 4) if whole else nothing


def check(rows: Iterable[dict[str, Any]], least: float) -> None:
    """Refuse files whose matrix work is not where it is fast.

    Args:
        rows: Of `summarise`.
        least: Share of matrix operators that must be accelerated, 1 for all of them.

    Raises:
        TodmError: a file has less; names the operators.
    """
    for row in rows:
        if row["matrix_accelerated"] < least:
            slow = ", ".join(f"{entry['what']} x{entry['nodes']}" for entry in row["behind"] if entry["matrix"])
            raise TodmError(
                f"only {100 * row['matrix_accelerated']:.0f} % of the matrix work in {row['file']} is accelerated, "
                f"{100 * least:g} % is asked for; on slow kernels: {slow}; multiply by parameters or buffers, with "
                "torch.bmm on rank 3, or lower export.delegated"
            )


def text(rows: Iterable[dict[str, Any]]) -> str:
    """One line a file, for people: `model.pte: 91 % of 45 nodes and 96 % of the time accelerated; behind: ...`."""
    lines = []
    for row in rows:
        behind = ", ".join(f"{e['what']} x{e['nodes']} ({100 * e['time']:.1f} %)" for e in row["behind"]) or "nothing"
        nodes = f"{100 * row['nodes_accelerated']:.0f} % of {row['nodes']} nodes"
        took = f"{100 * row['time_accelerated']:.0f} % of the time accelerated"
        integers = f"{100 * row['matrix_integer']:.0f} % of the matrix time in integers"
        lines.append(f"{row['file']}: {nodes} and {took}, {integers}; behind: {behind}")
    return "\n".join(lines)
