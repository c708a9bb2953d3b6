"""The command line: fast help, flags that reach the verbs, and one line for what cannot be read."""

import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import todm
from todm import cli, verbs
from todm.cli import VERBS, _help_of, _overrides, main
from todm.errors import TodmError


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = ["torch", "onnx", "onnxruntime", "executorch", "lhotse", "optuna", "sklearn", "scipy", "pydantic", "numpy"]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_waits_for_no_heavy_package(arguments):
    code = f"import sys, contextlib, todm.cli\nwith contextlib.suppress(SystemExit):\n    todm.cli.main({arguments})\n"
    start = time.perf_counter()
    *printed, modules = python(code + f"print(sorted(set({HEAVY}) & set(sys.modules)))").splitlines()
    assert time.perf_counter() - start < 3
    assert modules == "[]"
    assert printed


def test_importing_the_package_imports_no_torch_until_it_is_used():
    assert python(
        "import sys, todm\nprint('torch' in sys.modules)\ntodm.Choice\nprint('torch' in sys.modules)"
    ).split() == ["False", "True"]
    assert set(todm.__all__) == {"Choice", "SearchSpace", "activate", "extract"}
    assert all(callable(getattr(todm, name)) for name in todm.__all__)
    with pytest.raises(AttributeError, match="module 'todm' has no attribute 'Chioce'"):
        todm.Chioce  # noqa: B018


def test_every_verb_and_every_argument_has_help():
    assert set(VERBS) == set(verbs.__all__) == {n for n, f in vars(verbs).items() if inspect.isfunction(f)}
    for name, verb in VERBS.items():
        summary, texts = _help_of(verb)
        assert summary.endswith("."), name
        assert list(texts) == list(inspect.signature(verb).parameters)
        assert all(text.endswith(".") and len(text) > 10 for text in texts.values()), name


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_flag(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, parameter in inspect.signature(VERBS[verb]).parameters.items():
        if name == "overrides":
            assert "Any key of the recipe is a flag too: --KEY.KEY VALUE" in shown
        elif parameter.default in (inspect.Parameter.empty, ()):
            assert f"{name} " in shown
        else:
            assert "--" + name.replace("_", "-") in shown


def called(monkeypatch, verb: str, argv: list[str]) -> dict:
    """The arguments that a verb is called with."""
    seen = {}

    def record(**arguments):
        seen.update(arguments)
        return {"answer": 42}

    record.__signature__ = inspect.signature(VERBS[verb])
    record.__doc__, record.__annotations__ = VERBS[verb].__doc__, VERBS[verb].__annotations__
    record.__name__ = verb
    monkeypatch.setitem(cli.VERBS, verb, record)
    assert main([verb, *argv]) == 0
    return seen


def test_flags_reach_the_verb(monkeypatch, capsys):
    argv = ["RUN", "--budget", "size<=1MB, rtf<=0.05", "--trials", "7", "--json"]
    assert called(monkeypatch, "search", argv) == {
        "run": "RUN", "budget": "size<=1MB, rtf<=0.05", "trials": 7, "device": None, "worker": False, "json": True,
    }  # fmt: skip
    assert json.loads(capsys.readouterr().out) == {"answer": 42}
    seen = called(monkeypatch, "transcribe", ["B", "a.wav", "b.wav", "--runtime", "executorch", "--beam=4"])
    assert (seen["files"], seen["runtime"], seen["beam"], seen["json"]) == (["a.wav", "b.wav"], "executorch", 4, False)
    assert capsys.readouterr().out == ""
    seen = called(monkeypatch, "run", ["digits", "--training.updates", "5", "--full", "--seed=1", "--out", "o"])
    assert (seen["recipe"], seen["full"], seen["out"], seen["resume"]) == ("digits", True, "o", "auto")
    assert seen["overrides"] == {"training": {"updates": 5}, "seed": 1}


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ([], {}),
        (["--a.b", "1", "--a.c=2", "--d", "x"], {"a": {"b": 1, "c": 2}, "d": "x"}),
        (["--a", "[8, 16]", "--b", "null", "--c", "-0.5"], {"a": [8, 16], "b": None, "c": -0.5}),
        (["--name=a=b", "--folder", "/data/x y"], {"name": "a=b", "folder": "/data/x y"}),
        (["--a", "1", "--a", "2"], {"a": 2}),
        (["--a", "1", "--a.b", "2", "--a.c", "3"], {"a": {"b": 2, "c": 3}}),
    ],
)  # fmt: skip
def test_overrides_are_yaml_at_a_path(words, values):
    assert _overrides(words) == values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extra"], "cannot read 'extra': recipe keys are given as --key.key VALUE"),
        (["--a.b"], "cannot read '--a.b'"),
        (["--a", "1", "2"], "cannot read '2'"),
        (["--a", "[1"], "cannot read the value of --a: quote it"),
        (["--b", "x: y: z"], "cannot read the value of --b: quote it"),
        (["--", "1"], "cannot read '--'"),
        (["--a..b", "1"], "cannot read '--a..b'"),
    ],
)
def test_overrides_that_cannot_be_read(words, message):
    with pytest.raises(TodmError) as error:
        _overrides(words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: VERB; see `todm --help`"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "the following arguments are required: recipe; see `todm train --help`"),
        (["report", "r", "--jsn"], "unknown argument '--jsn'; see `todm report --help`"),
        (["search", "r", "--trials", "many"], "argument --trials: invalid int value: 'many'; see `todm search --help`"),
        (["train", "digits", "--resume", "maybe"], "--resume must be auto or never, not 'maybe'"),
        (["train", "digits", "--out"], "argument --out: expected one argument; see `todm train --help`"),
        (["train", "digits", "stray"], "cannot read 'stray'"),
        (["extract", "."], "the following arguments are required: arch; see `todm extract --help`"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_2(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("todm: ")
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.iterdir())


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupted(json: bool = False):
        """Stop.

        Args:
            json: Print the result as JSON.
        """
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.VERBS, "doctor", interrupted)
    monkeypatch.setattr(interrupted, "__name__", "doctor")
    assert main(["doctor"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_stops_is_no_traceback():
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} -m todm doctor | true", shell=True, executable="/bin/bash",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""


def test_doctor_says_what_is_missing_and_what_to_type(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("TODM_DATA", raising=False)
    assert main(["doctor", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["todm"] == todm.__version__
    assert state["packages"]["torch"] == __import__("torch").__version__.split("+")[0]
    assert "the installation is incomplete" not in str(state["advice"])

    from todm import doctor

    monkeypatch.setitem(doctor.EXTRAS, "speech", ("no-such-package",))
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("TODM_DATA", "/no/such/folder")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for line in (
        "no-such-package missing: type `pip install 'todm[speech]'`", "export OMP_NUM_THREADS=1",
        "TODM_DATA is /no/such/folder, which is not a folder: correct it or `unset TODM_DATA`",
    ):  # fmt: skip
        assert line in text


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "todm", "--version"], capture_output=True, text=True, check=False, cwd=Path(os.sep)
    )
    assert done.stdout == f"todm {todm.__version__}\n"
