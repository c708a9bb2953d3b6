"""Recognition while it is being said: sound in pieces from a file or a microphone, words as they come."""

import queue
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, TextIO

from todm.errors import TodmError
from todm.speech.decode import StreamRecogniser
from todm.speech.features import SAMPLE_RATE, Samples

PIECE = SAMPLE_RATE // 10
"""Samples heard at a time."""


def pieces(samples: Samples) -> Iterator[Samples]:
    """A recording (n,) as it would arrive."""
    return (samples[start : start + PIECE] for start in range(0, len(samples), PIECE))


def listen() -> Iterator[Samples]:
    """What the default microphone hears, 16 kHz, until the iterator is closed.

    Raises:
        TodmError: `sounddevice` is not installed, or there is no microphone.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise TodmError("a microphone needs sounddevice; type: pip install 'todm[microphone]'") from error
    except OSError as error:  # the package is there, the library below it is not
        raise TodmError(f"sounddevice does not load: {error}; type: apt-get install libportaudio2") from error
    heard: queue.SimpleQueue[Samples] = queue.SimpleQueue()

    def hear(block: Samples, frames: int, time: Any, status: Any) -> None:
        heard.put(block[:, 0].copy())

    try:
        stream = sounddevice.InputStream(SAMPLE_RATE, PIECE, channels=1, dtype="float32", callback=hear)
    except sounddevice.PortAudioError as error:
        raise TodmError(f"no microphone to listen to: {error.args[0]}; plug one in, or name a file") from error
    with stream:
        while True:
            yield heard.get()


def follow(recogniser: StreamRecogniser, source: Iterable[Samples], show: TextIO | None) -> str:
    """Hear a source to its end, or to Ctrl-C, and return its words.

    Args:
        show: Gets a line whenever the words grow: seconds heard, and all words so far.
    """
    recogniser.reset()
    text, count = "", 0
    with suppress(KeyboardInterrupt):
        for samples in source:
            recogniser.accept(samples)
            count += len(samples)
            if show and recogniser.text != text:
                text = recogniser.text
                print(f"{count / SAMPLE_RATE:7.2f} s  {text}", file=show, flush=True)
    final = recogniser.finish()
    if show and final != text:
        print(f"{count / SAMPLE_RATE:7.2f} s  {final}", file=show, flush=True)
    return final
