"""Words as they come: a recording in pieces, a source that is interrupted, a machine without a microphone."""

import io
import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from todm.cli import main
from todm.errors import TodmError
from todm.program import eager
from todm.space import SearchSpace
from todm.speech.decode import StreamRecogniser
from todm.speech.features import SAMPLE_RATE
from todm.speech.live import PIECE, follow, listen, pieces
from todm.subnet import extract


@pytest.fixture(scope="module")
def recogniser(task, trained) -> StreamRecogniser:
    program = task.program(extract(trained[0], SearchSpace.of(trained[0]).largest()).eval())
    frames = program.methods[0].inputs["x"].shape[1]
    return StreamRecogniser(eager(program), task.corpus.tokens, program.state_shapes(), frames)


@pytest.fixture(scope="module")
def audio(task) -> np.ndarray:
    """The four words that the recogniser has learnt by heart."""
    return next(samples for samples, text in task.corpus.utterances("train") if len(text.split()) == 4)


def test_pieces_make_up_the_recording(audio) -> None:
    parts = list(pieces(audio))
    assert {len(part) for part in parts[:-1]} == {PIECE}
    assert np.array_equal(np.concatenate(parts), audio)


def test_words_come_one_by_one_and_end_as_those_of_the_whole(recogniser, audio) -> None:
    shown = io.StringIO()
    text = follow(recogniser, pieces(audio), shown)
    assert text == recogniser.transcribe(audio) and len(text.split()) == 4
    lines = [line.split(" s  ") for line in shown.getvalue().splitlines()]
    assert lines[-1][1] == text and len(lines) >= 2
    assert all(after.startswith(before + " ") for (_, before), (_, after) in itertools.pairwise(lines))
    times = [float(seconds) for seconds, _ in lines]
    assert times == sorted(times) and times[0] < 1 and times[-1] <= len(audio) / SAMPLE_RATE + 0.01
    assert follow(recogniser, pieces(audio), None) == text


def test_an_interrupt_ends_the_utterance(recogniser, audio) -> None:
    def heard() -> Iterator[np.ndarray]:
        yield audio[: len(audio) // 2]
        raise KeyboardInterrupt

    assert follow(recogniser, heard(), None) == recogniser.transcribe(audio[: len(audio) // 2]) != ""


def microphones() -> bool:
    try:
        import sounddevice
    except (ImportError, OSError):
        return False
    return any(device["max_input_channels"] for device in sounddevice.query_devices())


@pytest.mark.skipif(microphones(), reason="there is a microphone")
def test_no_microphone_is_one_line() -> None:
    with pytest.raises(TodmError, match=r"pip install|apt-get install|plug one in") as error:
        next(listen())
    assert "\n" not in str(error.value)
    assert main(["transcribe", "nowhere", "--microphone"]) == 2
