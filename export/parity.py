"""Is the exported file the same model? Two programs side by side on the same real calls."""

from collections.abc import Sequence

import numpy as np

from todm.export.calibrate import Call
from todm.program import Methods, Program

TINY = float(np.finfo(np.float32).tiny)
FAR = float(np.finfo(np.float32).max)


def compare(
    program: Program, reference: Methods, candidate: Methods, calls: Sequence[Call]
) -> list[dict[str, str | int | float]]:
    """Run recorded calls through both, each carrying its own states: errors add up as they do in use.

    A stream begins anew where the recorded states are all zero. Every row says for one method how far the
    candidate went from the reference: `max_abs`, and `max_rel`, that difference over the largest value of the
    same output. A method that was never called has no row.
    """
    rows: list[dict[str, str | int | float]] = []
    for method in program.methods:
        names = list(method.inputs)
        feeds = {names.index(into): method.outputs.index(out) for out, into in method.states.items()}
        mine = [inputs for name, inputs in calls if name == method.name]
        difference, largest = np.zeros(len(method.outputs)), np.zeros(len(method.outputs))
        ours: tuple[np.ndarray, ...] = ()
        theirs: tuple[np.ndarray, ...] = ()
        for inputs in mine:
            carried = any(inputs[into].any() for into in feeds)
            ours = reference[method.name](*_fed(inputs, feeds, ours if carried else ()))
            theirs = candidate[method.name](*_fed(inputs, feeds, theirs if carried else ()))
            difference = np.maximum(difference, [_distance(a, b) for a, b in zip(ours, theirs, strict=True)])
            largest = np.maximum(largest, [np.abs(output).max() for output in ours])
        if mine:
            relative = float((difference / np.maximum(largest, TINY)).max())
            rows.append(
                {
                    "method": method.name,
                    "calls": len(mine),
                    "max_abs": float(difference.max()),
                    "max_rel": relative,
                }
            )
    return rows


def _fed(inputs: tuple[np.ndarray, ...], feeds: dict[int, int], previous: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """The recorded inputs, with this side's own states where it has any."""
    return [previous[feeds[index]] if previous and index in feeds else value for index, value in enumerate(inputs)]


def _distance(expected: np.ndarray, got: np.ndarray) -> float:
    """A NaN must not vanish in a comparison, so it counts as farther than any number."""
    distance = np.abs(expected.astype(np.float64) - got).max()
    return float(distance) if np.isfinite(distance) else FAR
