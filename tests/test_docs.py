"""Every command that docs/deploy.md shows is one the command line takes."""

import inspect
import re
import shlex
from pathlib import Path

import pytest

from todm.cli import VERBS, main

TEXT = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"(?:`|^    |^    \$ )(todm [^`\n]+)", TEXT, re.MULTILINE)))


def test_there_is_one_for_each_part() -> None:
    verbs = {command.split()[1] for command in COMMANDS}
    assert verbs >= {"export", "verify", "bench", "advise", "transcribe", "search"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_takes_it(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, verb, *words = shlex.split(command)
    needs = [name for name, p in inspect.signature(VERBS[verb]).parameters.items() if p.default is p.empty]
    seen = {}

    def record(**arguments: object) -> None:
        seen.update(arguments)

    record.__signature__ = inspect.signature(VERBS[verb])  # type: ignore[attr-defined]
    record.__annotations__, record.__doc__, record.__name__ = VERBS[verb].__annotations__, VERBS[verb].__doc__, verb
    monkeypatch.setitem(VERBS, verb, record)
    # A sentence may name a verb by its flags alone.
    named = bool(words) and not words[0].startswith("-")
    assert main([verb, *([] if named else needs), *words]) == 0
    assert seen
