"""Is the exported file the same model? Two programs side by side on the same real calls."""

from collections.abc import Sequence

import numpy as np

from todm.export.calibrate import Call
from todm.program import Methods, Program


def compare(
    program: Program, reference: Methods, candidate: Methods, calls: Sequence[Call]
) -> list[dict[str, str | int | float]]:
    """Run recorded calls through both, each carrying its own states, so that errors add up as they would in use.

    A stream begins anew where the recorded states are all zero. Every row says for one method how far the
    candidate went from the reference: `max_abs`, and `max_rel`, that difference over the largest value of the
    same output. A method that was never called has no row.
    """
    rows: list[dict[str, str | int | float]] = []
    for method in program.methods:
        inputs = list(method.inputs)
        feeds = {method.outputs.index(out): inputs.index(into) for out, into in method.states.items()}
        differences = np.zeros(len(method.outputs))
        largest = np.zeros(len(method.outputs))
        states: tuple[dict[int, np.ndarray], ...] = ({}, {})
        count = 0
        for values in (values for name, values in calls if name == method.name):
            if not any(values[into].any() for into in feeds.values()):
                states = ({}, {})
            results = []
            for side, methods in enumerate((reference, candidate)):
                carried = [states[side].get(index, value) for index, value in enumerate(values)]
                results.append(methods[method.name](*carried))
                states[side].update({into: results[side][out] for out, into in feeds.items()})
            for index, (expected, got) in enumerate(zip(*results, strict=True)):
                # A NaN must not vanish in a comparison, so it counts as farther than any number.
                distance = np.nan_to_num(np.abs(expected - got), nan=np.finfo(np.float32).max).max(initial=0.0)
                differences[index] = max(differences[index], distance)
                largest[index] = max(largest[index], np.abs(expected).max(initial=0.0))
            count += 1
        if count:
            relative = differences / np.maximum(largest, np.finfo(np.float32).tiny)
            rows.append(
                {
                    "method": method.name,
                    "calls": count,
                    "max_abs": float(differences.max()),
                    "max_rel": float(relative.max()),
                }
            )
    return rows
