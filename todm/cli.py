"""The command line: a table of verbs. Flags, types and help come from each verb's signature and docstring."""

import argparse
import inspect
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from todm import __version__, verbs
from todm.errors import TodmError

VERBS: dict[str, Callable[..., Any]] = {
    verb.__name__: verb
    for verb in (
        verbs.run, verbs.train, verbs.compare, verbs.search, verbs.extract, verbs.export, verbs.verify, verbs.bench,
        verbs.advise, verbs.report, verbs.transcribe, verbs.doctor,
    )
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise TodmError(f"{message}; see `{self.prog} --help`")


def _help_of(verb: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Summary and the text of each argument from a docstring in Google style."""
    doc = inspect.getdoc(verb) or ""
    summary, _, rest = doc.partition("\n\nArgs:\n")
    arguments = re.findall(r"^ {4}(\w+): ((?:.|\n(?: {8}))*)", rest.split("\n\n")[0], re.MULTILINE)
    return summary, {name: " ".join(text.split()) for name, text in arguments}


def _add_verb(parsers: Any, verb: Callable[..., Any]) -> None:
    summary, texts = _help_of(verb)
    parser = parsers.add_parser(
        verb.__name__, help=summary.splitlines()[0], description=summary,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,  # --seed is a key of the recipe, not short for --seeds
    )  # fmt: skip
    types = typing.get_type_hints(verb)
    for name, parameter in inspect.signature(verb).parameters.items():
        text, flag, kind = texts[name], "--" + name.replace("_", "-"), types[name]
        if name == "overrides":
            parser.epilog = "Any key of the recipe is a flag too: --KEY.KEY VALUE. " + text
        elif typing.get_origin(kind) is Sequence:
            parser.add_argument(name, nargs="*", help=text)
        elif parameter.default is inspect.Parameter.empty:
            parser.add_argument(name, help=text)
        elif kind is bool:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            scalar = next(t for t in (*typing.get_args(kind), kind) if isinstance(t, type) and t is not type(None))
            parser.add_argument(flag, type=scalar, default=parameter.default, help=text)
    parser.set_defaults(verb=verb)


def _overrides(words: list[str]) -> dict[str, Any]:
    """`--training.updates 100` or `--training.updates=100` -> {"training": {"updates": 100}}."""
    from todm.recipe import merged

    result: dict[str, Any] = {}
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    while words:
        flag = words.pop(0)
        path = flag.removeprefix("--").split(".")
        if not flag.startswith("--") or not words or not all(path):
            raise TodmError(f"cannot read {flag!r}: recipe keys are given as --key.key VALUE")
        try:
            value = yaml.safe_load(words.pop(0))
        except yaml.YAMLError:
            raise TodmError(f"cannot read the value of {flag}: quote it if it holds brackets or colons") from None
        for part in reversed(path):
            value = {part: value}
        result = merged(result, value)
    return result


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit code is 0, 2 for something the user can mend, 130 after an interrupt."""
    parser = _Parser(prog="todm", description="Train one supernet, deploy the best subnet on every device.")
    parser.add_argument("--version", action="version", version=f"todm {__version__}")
    parsers = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    for verb in VERBS.values():
        _add_verb(parsers, verb)
    try:
        values, rest = parser.parse_known_args(argv)
        arguments = vars(values)
        verb = arguments.pop("verb")
        if "overrides" in inspect.signature(verb).parameters:
            arguments["overrides"] = _overrides(rest)
        elif rest:
            raise TodmError(f"unknown argument {rest[0]!r}; see `todm {verb.__name__} --help`")
        result = verb(**arguments)
        if arguments.get("json"):
            print(json.dumps(result, indent=2))
    except TodmError as error:
        print(f"todm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        from todm.files import FULL, remedy

        if error.errno not in FULL:
            raise
        where = f"cannot write {error.filename}: " if error.filename else ""
        print(f"todm: {where}{error.strerror}; {remedy(error)}", file=sys.stderr)
        return 2
    return 0
