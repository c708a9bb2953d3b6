"""Recording real calls: what int8 is calibrated on, and what exported files are compared on."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from todm.program import Methods

Call = tuple[str, tuple[np.ndarray, ...]]
"""Name of a method and the inputs of one call of it, in order."""


class _Enough(Exception):
    """Ends a run from which enough was recorded."""


def record(methods: Methods, run: Callable[[Methods], object], limit: int = 200) -> list[Call]:
    """The first `limit` calls of each method while `run` uses `methods`, in the order they were made.

    `run` is ended once every method has been called that often. Typical:
    `record(eager(program), lambda methods: task.score(program, methods, "dev"))`.
    """
    calls: list[Call] = []
    counts: Counter[str] = Counter()

    def spy(name: str) -> Callable[..., tuple[np.ndarray, ...]]:
        def call(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            if counts[name] < limit:
                counts[name] += 1
                calls.append((name, tuple(np.array(value) for value in inputs)))
            elif all(counts[other] == limit for other in methods):
                raise _Enough
            return methods[name](*inputs)

        return call

    with suppress(_Enough):
        run({name: spy(name) for name in methods})
    return calls
