"""Utterances of one to seven spoken digits, joined from single-digit recordings of one speaker.

The recordings: a folder given, `$TODM_DATA/fsdd`, else the Free Spoken Digit Dataset (CC BY-SA 4.0)
downloaded from its home, else, without a network, words spoken by the Pico voices.
"""

import hashlib
import itertools
import os
import re
import shutil
import sys
import tarfile
import urllib.request
import wave
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import AudioSource, CutSet, MonoCut, Recording

from todm.errors import TodmError
from todm.files import one_at_a_time, read_json, write_json
from todm.speech.corpus import Corpus, make_cut, text_of
from todm.speech.features import SAMPLE_RATE, Samples, mono_16k
from todm.speech.tokens import Kind, Tokens

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
HOME = f"https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/tar.gz/{COMMIT}"
CHECKSUM = "45a9b976ba3397a2fd5c70a9f2e43c34f442a3a6be47392ecfc41174b678f37e"
"""SHA-256 over the names and bytes of the 3,000 recordings, sorted by name."""
TIMEOUT = 5.0
"""Seconds to wait for an answer from the network."""
NAME = re.compile(r"(\d)_([^_]+)_(\d+)\.wav")
"""Digit, speaker and take of a recording."""
TAKES = {"train": range(10, sys.maxsize), "dev": range(5, 10), "test": range(5)}
"""The official test takes, and a dev set beside them."""
PITCHES = (0.65, 0.8, 0.95, 1.15, 1.4)
"""Of synthetic speakers, relative to the voice."""
MOST_DIGITS = 7
REPEATED = 0.12
"""Share of neighbours that are the same digit twice."""
VERSION = 2
"""Of the way utterances are made; to be raised when they would come out differently."""

Voices = dict[str, list[list[Samples]]]
"""Takes at 16 kHz by speaker and digit."""


@dataclass(frozen=True)
class DigitsCorpus:
    """A finished corpus on disk."""

    folder: Path
    origin: str
    """`local`, `downloaded` or `synthetic`."""
    notice: str
    """The same in a sentence for the user."""
    checksum: str
    """SHA-256 of the source recordings."""

    def corpus(self, kind: Kind = "words") -> Corpus:
        """The splits `train`, `dev` and `test`, with the vocabulary of the training texts."""
        cuts = {split: CutSet.from_file(self.folder / f"cuts_{split}.jsonl.gz") for split in TAKES}
        cuts = {split: some.with_recording_path_prefix(self.folder).to_eager() for split, some in cuts.items()}
        return Corpus(cuts, Tokens.build(kind, map(text_of, cuts["train"])))


def prepare(
    folder: Path | str, *, data: Path | str | None = None, seed: int = 0, train: int = 6000, dev: int = 250,
    test: int = 600, held_out_speaker: str | None = None, babble_snr: tuple[float, float] | None = None,
) -> DigitsCorpus:  # fmt: skip
    """Make the corpus in `folder`, or take the one there if it was made with the same arguments.

    Args:
        folder: A folder of its own; it appears only when complete.
        data: Recordings named `{digit}_{speaker}_{take}.wav`, in the folder or its sub-folder `recordings`.
        seed: Of digits, pauses, level and noise.
        train: Utterances to train on, from takes 10 and later.
        dev: Utterances to choose models on, from takes 5-9.
        test: Utterances to report on, from takes 0-4.
        held_out_speaker: Test on this speaker alone, all takes, and use the others for the rest.
        babble_snr: Level of the speech above that of other speakers who talk at once, in dB, from and to.

    Raises:
        TodmError: too few recordings, an unknown speaker, or a folder that is in use or cannot be written.
    """
    folder, local = Path(folder), _local(data)
    request: dict[str, Any] = {"version": VERSION, "seed": seed, "held_out_speaker": held_out_speaker}
    request |= {"train": train, "dev": dev, "test": test, "babble_snr": list(babble_snr) if babble_snr else None}
    request["recordings"] = _checksum(local) if local else None
    try:
        if found := _made(folder, request):
            return found
        with one_at_a_time(folder.parent):
            return _made(folder, request) or _make(folder, request, local)
    except OSError as error:
        raise TodmError(f"cannot write the digits to {folder}: {error.strerror}; name another folder") from error


def _made(folder: Path, request: dict[str, Any]) -> DigitsCorpus | None:
    """The corpus in `folder`, if it is the one asked for."""
    manifest = folder / "corpus.json"
    if not manifest.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise TodmError(f"{folder} holds other files; name a folder that is empty or new")
        return None
    made = read_json(manifest)
    if made["request"] != request:
        return None
    print(f"digits: {made['notice']} (prepared before)", file=sys.stderr)
    return DigitsCorpus(folder, made["origin"], made["notice"], made["checksum"])


def _make(folder: Path, request: dict[str, Any], local: dict[str, bytes]) -> DigitsCorpus:
    """Write the corpus asked for beside `folder`, then put it in its place."""
    part, babble_snr = folder.with_name(f".{folder.name}.part"), request["babble_snr"]
    origin, notice, recordings = _source(local)
    print(f"digits: {notice}", file=sys.stderr)
    chosen = {split: _voices(recordings, split, request["held_out_speaker"]) for split in TAKES}
    shutil.rmtree(part, ignore_errors=True)
    try:
        for number, (split, voices) in enumerate(chosen.items()):
            (part / split).mkdir(parents=True)
            # A speaker who is held out is in no other split, not even in the background.
            others = voices if split != "test" else _voices(recordings, split, None)
            babble = (others, babble_snr) if babble_snr else None
            if babble and len(babble[0]) < 2:
                raise TodmError("data.babble_snr needs recordings of at least two speakers: one talks, others disturb")
            ids = ((f"{split}/{i:05d}", [request["seed"], number, i]) for i in range(request[split]))
            cuts = [_utterance(part, name, voices, seeds, babble) for name, seeds in ids]
            CutSet.from_cuts(cuts).to_file(part / f"cuts_{split}.jsonl.gz")
        corpus = DigitsCorpus(folder, origin, notice, _checksum(recordings))
        about = {"request": request, "origin": origin, "notice": notice, "checksum": corpus.checksum}
        write_json(part / "corpus.json", about)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return corpus


def _local(data: Path | str | None) -> dict[str, bytes]:
    """Recordings by file name, from `data` or $TODM_DATA/fsdd; none where neither is there."""
    if data is None and "TODM_DATA" not in os.environ:
        return {}
    root = Path(data) if data is not None else Path(os.environ["TODM_DATA"], "fsdd")
    files = (root / "recordings" if (root / "recordings").is_dir() else root).glob("*.wav")
    found = {path.name: path.read_bytes() for path in sorted(files) if NAME.fullmatch(path.name)}
    if data is not None and not found:
        raise TodmError(f"{data} holds no recordings named DIGIT_SPEAKER_TAKE.wav, such as 7_jackson_32.wav")
    return found


def _checksum(recordings: dict[str, bytes]) -> str:
    return hashlib.sha256(b"".join(name.encode() + recordings[name] for name in sorted(recordings))).hexdigest()


def _source(local: dict[str, bytes]) -> tuple[str, str, dict[str, bytes]]:
    """Which recordings are used, what to tell the user, and the recordings by file name."""
    if local:
        return "local", f"{len(local)} local recordings of people", local
    try:
        downloaded = _download()
    except Exception as error:  # no network, a cut line, a login page: whatever it is, speech can be made here
        notice = f"SYNTHETIC SPEECH by the Pico voices: no recordings here, and {HOME} failed ({error})"
        return "synthetic", notice, _speak()
    return "downloaded", f"{len(downloaded)} recordings of people from {HOME}", downloaded


def _download() -> dict[str, bytes]:
    """The pinned recordings, read out of the archive in memory: no path in it is ever followed."""
    with urllib.request.urlopen(HOME, timeout=TIMEOUT) as response:
        archive = BytesIO(response.read())
    recordings = {}
    with tarfile.open(fileobj=archive, mode="r:gz") as tar:
        for member in tar:
            name = Path(member.name).name
            if NAME.fullmatch(name) and (file := tar.extractfile(member)):
                recordings[name] = file.read()
    if _checksum(recordings) != CHECKSUM:
        raise ValueError(f"its {len(recordings)} recordings do not have the pinned checksum")
    return recordings


def _speak() -> dict[str, bytes]:
    """The pitches of each English Pico voice for speakers, twenty speeds for takes.

    Pico keeps a little state from word to word, so that its samples can differ from run to run.
    """
    from py_nanotts import NanoTTS

    voice, rng, recordings = NanoTTS(), np.random.default_rng(0), {}
    for language, pitch in itertools.product(("en-GB", "en-US"), PITCHES):
        # Shuffled, so that the takes of every split span the whole range.
        for take, speed in enumerate(rng.permutation(np.linspace(0.75, 1.4, 20)).tolist()):
            for digit, word in enumerate(WORDS):
                said = voice.speak(word, language, speed, pitch * rng.uniform(0.95, 1.05), volume=0.6)
                samples = np.frombuffer(said, "<i2")
                loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
                file = BytesIO()
                _write(file, samples[loud[0] : loud[-1] + 1])
                recordings[f"{digit}_{language}-{pitch}_{take}.wav"] = file.getvalue()
    return recordings


def _write(file: Any, samples: np.ndarray) -> None:
    """A WAV file of 16-bit samples; soundfile would wait for the disk after each of thousands of files."""
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        sound.writeframes(samples.astype("<i2").tobytes())


def _voices(recordings: dict[str, bytes], split: str, held_out: str | None) -> Voices:
    """The clips that a split may use."""
    voices: Voices = {}
    tested = held_out is not None and split == "test"
    for name, content in sorted(recordings.items()):
        digit, speaker, take = name.removesuffix(".wav").split("_")
        if (speaker == held_out) == tested and (tested or int(take) in TAKES[split]):
            try:
                audio, rate = soundfile.read(BytesIO(content), dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise TodmError(f"the recording {name} is not readable audio; take it out of the data") from error
            voices.setdefault(speaker, [[] for _ in WORDS])[int(digit)].append(mono_16k(audio, rate))
    if not voices or any([] in digits for digits in voices.values()):
        known = ", ".join(sorted({name.split("_")[1] for name in recordings}))
        needs = f"takes 0-4 of every digit for test, 5-9 for dev, more for train; speakers are {known}"
        raise TodmError(f"too few recordings for {split}{f' by {held_out}' if tested else ''}: there must be {needs}")
    return voices


def _utterance(
    folder: Path, name: str, voices: Voices, seed: list[int], babble: tuple[Voices, tuple[float, float]] | None
) -> MonoCut:
    """Write one utterance, a function of its seed; its cut names the audio relative to `folder`."""
    rng = np.random.default_rng(seed)
    speaker = sorted(voices)[rng.integers(len(voices))]
    digits = [int(rng.integers(10))]
    for _ in range(rng.integers(MOST_DIGITS)):
        other = (digits[-1] + int(rng.integers(1, 10))) % 10
        digits.append(digits[-1] if rng.random() < REPEATED else other)
    parts = [_pause(rng, 0.1, 0.4)]
    for digit in digits:
        takes = voices[speaker][digit]
        parts += [takes[rng.integers(len(takes))], _pause(rng, 0.1, 0.4)]
    parts[-1] = _pause(rng, 0.2, 0.35)
    samples = np.concatenate(parts)
    if babble:
        others = {name: digits for name, digits in babble[0].items() if name != speaker}
        samples = _among(samples, others, babble[1], rng)
    samples *= 10 ** (rng.uniform(-16, -2) / 20) / np.abs(samples).max()  # peak, full scale = 0 dB
    noise = np.sqrt(np.mean(np.square(samples))) * 10 ** (-rng.uniform(20, 40) / 20)
    samples += np.float32(noise) * rng.standard_normal(len(samples), dtype=np.float32)
    _write(str(folder / f"{name}.wav"), np.rint(samples * 32767).clip(-32768, 32767))
    source = AudioSource("file", [0], f"{name}.wav")
    recording = Recording(name, [source], SAMPLE_RATE, len(samples), len(samples) / SAMPLE_RATE)
    return make_cut(recording, " ".join(WORDS[digit] for digit in digits), speaker)


def _among(samples: Samples, others: Voices, snr: tuple[float, float], rng: np.random.Generator) -> Samples:
    """Samples (n,) with up to three others who say digits all the while."""
    crowd = np.zeros_like(samples)
    for speaker in rng.choice(sorted(others), min(3, len(others)), replace=False).tolist():
        start = -int(rng.integers(SAMPLE_RATE // 4))
        while start < len(crowd):
            takes = others[speaker][rng.integers(10)]
            take = takes[rng.integers(len(takes))]
            take = take[max(0, -start) :] / max(float(np.sqrt(np.mean(np.square(take)))), 1e-9)
            begin = max(start, 0)
            crowd[begin : begin + len(take)] += take[: len(crowd) - begin]
            start = begin + len(take) + int(rng.integers(SAMPLE_RATE // 5))
    level = np.sqrt(np.mean(np.square(samples)) / np.mean(np.square(crowd))) * 10 ** (-rng.uniform(*snr) / 20)
    return samples + np.float32(level) * crowd


def _pause(rng: np.random.Generator, shortest: float, longest: float) -> Samples:
    return np.zeros(round(rng.uniform(shortest, longest) * SAMPLE_RATE), np.float32)
