"""Made once for all tests: a program, its real calls, its bundle, and a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy import streaming_program, transcribe

from todm.export import Bundle, Call, record, write_bundle
from todm.export.browser import NoBrowser, chromium
from todm.export.proof import attach
from todm.program import Program, eager


@pytest.fixture(scope="session")
def program() -> Program:
    return streaming_program()


@pytest.fixture(scope="session")
def calls(program: Program) -> list[Call]:
    return record(eager(program), transcribe)


@pytest.fixture(scope="session")
def pristine(program: Program, calls: list[Call], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of the program, both runtimes and precisions. Not to be written to."""
    bundle = write_bundle(
        tmp_path_factory.mktemp("bundles") / "bundle",
        program,
        name="toy",
        arch={"depth": 1, "ff": 256},
        params=40_000,
        macs=100_000,
        metrics={"wer": 2.5},
        data={"name": "noise", "license": "cc0-1.0"},
        task="automatic-speech-recognition",
        calibration=calls,
    )
    attach(bundle, program, calls)
    return bundle


@pytest.fixture(scope="session")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV file that the browser takes for its microphone; to be written by a test."""
    return tmp_path_factory.mktemp("microphone") / "sound.wav"


@pytest.fixture(scope="session")
def browser(microphone: Path) -> Iterator[Any]:
    hears = f"use-file-for-fake-audio-capture={microphone}"
    switches = ("window-size=1280,1000", "use-fake-device-for-media-stream", "use-fake-ui-for-media-stream", hears)
    try:
        with chromium(*switches) as window:
            yield window
    except NoBrowser as missing:
        pytest.skip(str(missing))
