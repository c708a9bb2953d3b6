"""The one exception a user is meant to read: a single line, shown without a traceback, exit code 2."""

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


class TodmError(Exception):
    """Something the user can mend. The message says what is wrong, where, and what to type."""


def script(main: Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], int]:
    """The entry of a module that is run by itself: it returns an exit code, 2 after an error that it printed."""

    @functools.wraps(main)
    def run(arguments: Sequence[str]) -> int:
        try:
            main(arguments)
        except TodmError as error:
            print(f"{Path(inspect.getfile(main)).stem}: {error}", file=sys.stderr)
            return 2
        return 0

    return run
