"""Utterances and their words: lhotse's manifests and archives, or a folder of audio and a table of texts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio.backend import LibsndfileBackend, audio_backend, get_default_audio_backend
from lhotse.cut import Cut

from todm.errors import TodmError
from todm.speech.features import Samples, mono_16k
from todm.speech.tokens import Tokens


@dataclass(frozen=True)
class Corpus:
    """Utterances by split, and the symbols they are written in."""

    cuts: dict[str, CutSet]
    tokens: Tokens

    def utterances(self, split: str) -> Iterator[tuple[Samples, str]]:
        """Samples (n,) at 16 kHz and words of every utterance of a split, in the order of its manifest."""
        return ((samples_of(cut), text_of(cut)) for cut in self.cuts[split])


class _Backend(LibsndfileBackend):
    """lhotse's default, which for each file looks through the environment for what else could read it, where needed."""

    def read_audio(self, path_or_fd: Any, *arguments: Any, **options: Any) -> tuple[np.ndarray, int]:
        if str(path_or_fd).endswith((".wav", ".flac")):
            return super().read_audio(path_or_fd, *arguments, **options)
        return get_default_audio_backend().read_audio(path_or_fd, *arguments, **options)


_BACKEND = _Backend()


def samples_of(cut: Cut) -> Samples:
    """The audio of a cut, mixed down: (n,) at 16 kHz."""
    with audio_backend(_BACKEND):
        return mono_16k(cut.load_audio().T, cut.sampling_rate)


def text_of(cut: Cut) -> str:
    """The words of a cut."""
    return " ".join(supervision.text for supervision in cut.supervisions)


def open_cuts(path: Path | str, seed: int = 0) -> CutSet:
    """A lhotse manifest (cuts.jsonl.gz) or a folder of Shar archives, read from disk as it goes.

    Args:
        seed: Of the order of the archives, which differs in every epoch.

    Raises:
        TodmError: there is neither.
    """
    path = Path(path)
    if path.is_file() and ".jsonl" in path.suffixes:
        return CutSet.from_jsonl_lazy(path)
    if path.is_dir() and any(path.glob("cuts.*.jsonl*")):
        return CutSet.from_shar(in_dir=path, shuffle_shards=True, stateful_shuffle=True, seed=seed)
    raise TodmError(f"{path} is neither a lhotse manifest (.jsonl, .jsonl.gz) nor a folder of Shar archives")


def make_cut(recording: Recording, text: str, speaker: str | None = None) -> MonoCut:
    """The cut that is one whole recording, in which `text` is said."""
    cut = recording.to_cut()
    said = SupervisionSegment(cut.id, recording.id, 0.0, cut.duration, cut.channel, text, speaker=speaker)
    cut.supervisions = [said]
    return cut


def corpus_from_folder(folder: Path | str, table: Path | str) -> CutSet:
    """Utterances of a user's own: a folder of audio files and a table of what is said in them.

    Args:
        folder: Audio files of any format, rate and number of channels.
        table: UTF-8 text, a line for every utterance: file name inside `folder`, tab, words.

    Raises:
        TodmError: the table cannot be read or is empty, a line has no words, or its file is not audio.
    """
    try:
        lines = Path(table).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TodmError(f"cannot read the table {table} as UTF-8 text: {error}") from error
    cuts = []
    for number, line in enumerate(lines, start=1):
        name, _, text = line.partition("\t")
        if not text.strip():
            raise TodmError(f"{table}, line {number}: write a file name, a tab and the words")
        try:
            recording = Recording.from_file(Path(folder) / name, recording_id=name)
        except Exception as error:  # lhotse tries several readers and raises whatever the last one did
            raise TodmError(f"{table}, line {number}: {Path(folder) / name} is not readable audio") from error
        cuts.append(make_cut(recording, " ".join(text.split())))
    if not cuts:
        raise TodmError(f"the table {table} is empty; write a file name, a tab and the words on every line")
    return CutSet.from_cuts(cuts)
