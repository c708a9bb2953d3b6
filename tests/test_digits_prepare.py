import io
import os
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from todm.errors import TodmError
from todm.recipes.digits import prepare as module
from todm.recipes.digits.prepare import WORDS, prepare
from todm.speech.corpus import samples_of, text_of

FEW = {"train": 30, "dev": 10, "test": 20}
TAKES = (0, 3, 5, 9, 10, 49)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Two speakers at 8 kHz whose digits are tones: 200 + 100 digit + take Hz, twice that by "high"."""
    folder = tmp_path_factory.mktemp("data") / "recordings"
    folder.mkdir()
    time = np.arange(2_400) / 8_000
    for speaker, factor in (("high", 2), ("low", 1)):
        for digit in range(10):
            for take in TAKES:
                audio = 0.5 * np.sin(2 * np.pi * factor * (200 + 100 * digit + take) * time)
                soundfile.write(folder / f"{digit}_{speaker}_{take}.wav", audio, 8_000)
    (folder / "notes.wav.txt").write_text("not a recording")
    return folder


def pitches(samples: np.ndarray) -> list[float]:
    """Frequencies in Hz of the tones in an utterance, one for each stretch of sound."""
    loud = np.convolve(np.abs(samples) > 0.3 * np.abs(samples).max(), np.ones(160), "same") > 0
    edges = np.flatnonzero(np.diff(loud.astype(int), prepend=0, append=0))
    found = []
    for start, end in edges.reshape(-1, 2):
        spectrum = np.abs(np.fft.rfft(samples[start:end] * np.hanning(end - start), 160_000))
        found.append(spectrum.argmax() / 10)
    return found


def test_the_audio_says_what_the_text_says_with_takes_of_the_split_by_one_speaker(tmp_path, recordings):
    made = prepare(tmp_path / "c", data=recordings.parent, **FEW)
    assert (made.origin, made.notice) == ("local", "120 local recordings of people")
    corpus = made.corpus()
    assert corpus.tokens.symbols == ("<blk>", "▁", *sorted(WORDS))
    assert {split: len(cuts) for split, cuts in corpus.cuts.items()} == FEW
    allowed = {"train": (10, 49), "dev": (5, 9), "test": (0, 3)}
    seen = set()
    for split, cuts in corpus.cuts.items():
        for cut in cuts:
            samples, (supervision,) = samples_of(cut), cut.supervisions
            factor = {"high": 2, "low": 1}[supervision.speaker]
            heard = [divmod(round(pitch / factor), 100) for pitch in pitches(samples)]
            assert [WORDS[hundreds - 2] for hundreds, _ in heard] == text_of(cut).split()
            assert {take for _, take in heard} <= set(allowed[split])
            assert 1 <= len(heard) <= 7
            peak = np.abs(samples).max()
            assert 0.15 < peak < 0.9
            tail = np.flatnonzero(np.abs(samples) > 0.3 * peak)[-1]
            assert 0.19 < (len(samples) - tail) / 16_000 < 0.36
            assert 0 < np.std(samples[-2_000:]) < 0.1 * peak
            seen |= {(split, supervision.speaker, take) for _, take in heard}
    assert len(seen) == 12


def test_neighbours_repeat_as_often_as_promised(tmp_path, recordings):
    corpus = prepare(tmp_path / "c", data=recordings, train=600, dev=1, test=1).corpus("characters")
    words = [text_of(cut).split() for cut in corpus.cuts["train"]]
    repeats = [a == b for w in words for a, b in pairwise(w)]
    assert len(repeats) > 1_500
    assert 0.095 < np.mean(repeats) < 0.145
    assert {len(w) for w in words} == set(range(1, 8))
    assert "▁" in corpus.tokens.symbols
    assert "s" in corpus.tokens.symbols


def audio_of(corpus) -> dict[str, bytes]:
    files = corpus.folder.rglob("*.wav")
    return {str(path.relative_to(corpus.folder)): path.read_bytes() for path in files}


def test_the_seed_decides(tmp_path, recordings):
    first, again = (audio_of(prepare(tmp_path / name, data=recordings, **FEW)) for name in "ab")
    assert first == again
    assert len(first) == 60
    other = audio_of(prepare(tmp_path / "c", data=recordings, seed=1, **FEW))
    assert all(first[name] != other[name] for name in first)
    more = audio_of(prepare(tmp_path / "d", data=recordings, **{**FEW, "train": 40}))
    assert all(first[name] == more[name] for name in first)


def test_a_finished_corpus_is_used_again_and_another_one_replaces_it(tmp_path, recordings, capsys):
    folder = tmp_path / "c"
    made = prepare(folder, data=recordings, **FEW)
    stamp = (folder / "train/00000.wav").stat().st_mtime_ns
    (tmp_path / ".c.part").mkdir()  # what a killed run leaves
    assert prepare(folder, data=recordings, **FEW) == made
    assert "(prepared before)" in capsys.readouterr().err
    assert (folder / "train/00000.wav").stat().st_mtime_ns == stamp
    prepare(folder, data=recordings, seed=1, **FEW)
    assert (folder / "train/00000.wav").stat().st_mtime_ns != stamp
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    (tmp_path / "c").rename(tmp_path / "moved")
    moved = prepare(tmp_path / "moved", data=recordings, seed=1, **FEW).corpus()
    assert samples_of(moved.cuts["dev"][0]).size


def test_one_of_several_processes_makes_it_and_the_others_take_it(tmp_path, recordings, capfd):
    script = f"from todm.recipes.digits.prepare import prepare; prepare('c', data={str(recordings)!r}, train=300)"
    started = [subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path) for _ in range(3)]
    assert [one.wait(timeout=120) for one in started] == [0, 0, 0]
    assert capfd.readouterr().err.count("prepared before") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_failure_leaves_nothing_behind(tmp_path, recordings, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_json", fail)
    with pytest.raises(TodmError, match="No space left"):
        prepare(tmp_path / "c", data=recordings, **FEW)
    assert not list(tmp_path.iterdir())


def test_a_held_out_speaker_is_the_only_one_tested(tmp_path, recordings):
    corpus = prepare(tmp_path / "c", data=recordings, held_out_speaker="low", **FEW).corpus()
    speakers = {split: {cut.supervisions[0].speaker for cut in cuts} for split, cuts in corpus.cuts.items()}
    assert speakers == {"train": {"high"}, "dev": {"high"}, "test": {"low"}}
    takes = {round(pitch) % 100 for cut in corpus.cuts["test"] for pitch in pitches(samples_of(cut))}
    assert takes == set(TAKES)


def test_a_held_out_speaker_is_not_in_the_background_either(tmp_path, recordings):
    """Other recordings of that speaker change nothing but the test set."""
    made = []
    for name, level in (("loud", 1.0), ("soft", 0.5)):
        (tmp_path / name).mkdir()
        for path in recordings.glob("*.wav"):
            samples, rate = soundfile.read(path)
            ramp = np.linspace(level, 1.0, len(samples)) if "_low_" in path.name else 1.0
            for speaker in ("_high_", "_other_") if "_high_" in path.name else ("_low_",):
                file = tmp_path / name / path.name.replace("_high_", speaker)
                soundfile.write(file, ramp * samples, rate)
        asked = {"held_out_speaker": "low", "babble_snr": (0, 5), **FEW}
        corpus = prepare(tmp_path / f"made-{name}", data=tmp_path / name, **asked).corpus()
        made.append({split: [samples_of(cut) for cut in cuts] for split, cuts in corpus.cuts.items()})
    for split in FEW:
        same = all(np.array_equal(a, b) for a, b in zip(made[0][split], made[1][split], strict=True))
        assert same == (split != "test")


def test_others_talk_at_once_at_the_level_asked_for(tmp_path, recordings):
    rng, time = np.random.default_rng(0), np.arange(30_000) / 16_000
    samples = np.sin(2 * np.pi * 200 * time).astype(np.float32)
    takes = [[np.sin(2 * np.pi * 1000 * time[:4000]).astype(np.float32)] for _ in WORDS]
    crowd = module._among(samples, {"one": takes, "two": takes}, (10, 10), rng) - samples
    assert 10 * np.log10(np.mean(samples**2) / np.mean(crowd**2)) == pytest.approx(10, abs=1e-3)
    assert np.abs(np.fft.rfft(crowd)).argmax() == pytest.approx(1000 * 30_000 / 16_000, abs=5)
    assert all(np.abs(part).max() > 0 for part in np.split(crowd[6000:], 4))

    alone, among = (prepare(tmp_path / str(snr), data=recordings, babble_snr=snr, **FEW) for snr in (None, (0, 5)))
    for cut, other in zip(alone.corpus().cuts["test"], among.corpus().cuts["test"], strict=True):
        assert text_of(cut) == text_of(other)
    assert audio_of(alone) != audio_of(among)
    for path in recordings.glob("*_high_*.wav"):
        (tmp_path / "lone").mkdir(exist_ok=True)
        (tmp_path / "lone" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(TodmError, match="two speakers"):
        prepare(tmp_path / "x", data=tmp_path / "lone", babble_snr=(0, 5), **FEW)


def test_wrong_requests_are_one_clear_line(tmp_path, recordings):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not delete")
    one_take = tmp_path / "one"
    one_take.mkdir()
    for path in recordings.glob("*_10.wav"):
        (one_take / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in recordings.glob("*.wav"):
        (damaged / path.name).write_bytes(path.read_bytes() if path.name != "3_low_5.wav" else b"noise")
    (tmp_path / "file").write_text("")
    for folder, options, says in (
        ("c", {"data": tmp_path / "nowhere"}, "holds no recordings named DIGIT_SPEAKER_TAKE.wav"),
        ("c", {"data": recordings, "held_out_speaker": "bob"}, "by bob.*speakers are high, low"),
        ("c", {"data": one_take}, "too few recordings for dev"),
        ("c", {"data": damaged}, "3_low_5.wav is not readable audio"),
        ("mine", {"data": recordings}, "holds other files"),
        ("file/c", {"data": recordings}, "cannot write"),
    ):
        with pytest.raises(TodmError, match=says) as caught:
            prepare(tmp_path / folder, **options, **FEW)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "c").exists()
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not delete"


@pytest.fixture
def archive(tmp_path, recordings, monkeypatch) -> Path:
    """An archive at "home", with a path that would leave the folder if it were extracted."""
    monkeypatch.delenv("TODM_DATA", raising=False)
    path = tmp_path / "home.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for recording in sorted(recordings.glob("*.wav")):
            tar.add(recording, f"fsdd-1/recordings/{recording.name}")
        evil = tarfile.TarInfo("../../evil.wav")
        evil.size = 4
        tar.addfile(evil, io.BytesIO(b"evil"))
    monkeypatch.setattr(module, "HOME", path.as_uri())
    content = {path.name: path.read_bytes() for path in recordings.glob("*.wav")}
    monkeypatch.setattr(module, "CHECKSUM", module._checksum(content))
    return path


def test_recordings_are_downloaded_when_there_are_none(tmp_path, archive, recordings, capsys):
    made = prepare(tmp_path / "c", **FEW)
    assert made.origin == "downloaded"
    assert made.checksum == module.CHECKSUM
    assert "120 recordings of people from file:" in capsys.readouterr().err
    assert audio_of(made) == audio_of(prepare(tmp_path / "d", data=recordings, **FEW))
    assert not list(tmp_path.rglob("evil.wav"))


@pytest.mark.parametrize("what", ["no network", "a login page", "other content"])
def test_speech_is_made_when_nothing_can_be_downloaded(tmp_path, archive, monkeypatch, capsys, what):
    if what == "no network":
        monkeypatch.setattr(module, "HOME", "http://localhost:1/fsdd.tar.gz")
    elif what == "a login page":
        archive.write_text("<html>Welcome to Hotel Wi-Fi</html>")
    else:
        monkeypatch.setattr(module, "CHECKSUM", "0" * 64)
    monkeypatch.setattr(module, "PITCHES", (0.95,))
    made = prepare(tmp_path / "c", train=5, dev=5, test=5)
    assert made.origin == "synthetic"
    assert "SYNTHETIC SPEECH by the Pico voices" in capsys.readouterr().err
    cuts = made.corpus().cuts["test"]
    assert {cut.supervisions[0].speaker for cut in cuts} <= {"en-GB-0.95", "en-US-0.95"}
    for cut in cuts:
        words, samples = len(text_of(cut).split()), samples_of(cut)
        loud = np.abs(samples) > 0.2 * np.abs(samples).max()
        assert 0.04 * words < loud.mean() * cut.duration < 0.5 * words


def test_the_pinned_checksum_is_that_of_the_real_recordings(tmp_path):
    data = Path(os.environ.get("TODM_DATA", "nowhere")) / "fsdd"
    if not data.is_dir():
        pytest.skip("$TODM_DATA/fsdd is not there")
    made = prepare(tmp_path / "c", **FEW)
    assert made.origin == "local"
    assert made.checksum == module.CHECKSUM
    assert {cut.supervisions[0].speaker for cut in made.corpus().cuts["train"]} <= {
        "george", "jackson", "lucas", "nicolas", "theo", "yweweler",
    }  # fmt: skip
