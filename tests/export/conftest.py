"""One program, its real calls and its bundle, exported once for all tests."""

import pytest
from toy import streaming_program, transcribe

from todm.export import Bundle, Call, record, write_bundle
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
    return write_bundle(
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
