"""The LibriSpeech recipe on a miniature corpus in its own folder format, spoken by a synthesiser."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from py_nanotts import NanoTTS

from todm.checkpoint import list_checkpoints, newest_checkpoint
from todm.cli import main
from todm.errors import TodmError
from todm.recipe import load_recipe
from todm.recipes.librispeech.task import LibriSpeechData, LibriSpeechTask
from todm.run import Run
from todm.speech.task import TransducerConfig
from todm.trainer import Trainer

TEXTS = [
    "THE CAT SAT DOWN", "MY DOG RAN HOME", "BLUE BIRDS SING", "RAIN FALLS AT NIGHT", "OPEN THAT DOOR", "CLOSE YOUR BOOK",
    "TEN GREEN TREES", "SHE READS LETTERS", "WE WALK SLOWLY", "HE LIKES TEA", "SNOW IS COLD", "FIRE MUST BURN",
    "FISH SWIM DEEP", "GRANDMOTHER COOKS SOUP", "WHITE CLOUDS MOVE", "SEVEN SHIPS SAIL", "LOOK OVER THERE",
    "CHILDREN JUMP HIGH", "MUSIC PLAYS ALL DAY", "PLEASE COME BACK",
]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Twenty utterances of two speakers for training; the same for dev and test."""
    home, voice, rng = tmp_path_factory.mktemp("corpus") / "LibriSpeech", NanoTTS(), np.random.default_rng(0)
    for speaker, language in ((11, "en-US"), (22, "en-GB")):
        chapter, lines = home / "train-clean-5" / str(speaker) / "7", []
        chapter.mkdir(parents=True)
        for number, text in enumerate(TEXTS[speaker // 11 - 1 :: 2]):
            name = f"{speaker}-7-{number:04d}"
            audio = np.frombuffer(voice.speak(text.lower(), language), "<i2")
            audio = np.rint(audio + rng.normal(0, 30, len(audio))).astype(np.int16)  # silence as microphones hear it
            soundfile.write(chapter / f"{name}.flac", audio, 16_000)
            lines.append(f"{name} {text}\n")
        (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))
    for part in ("dev-clean", "test-clean"):
        shutil.copytree(home / "train-clean-5", home / part)
    return home


PARTS = [
    "--data.train", "[train-clean-5]", "--data.dev", "[dev-clean]", "--data.test", "[test-clean]",
]  # fmt: skip


def test_every_stage_runs_goes_on_after_a_kill_and_learns_twenty_utterances(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TODM_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    command = ["librispeech", "--quick", "--data", str(corpus), "--out", str(out), *PARTS]
    training = subprocess.Popen([sys.executable, "-m", "todm", "train", *command], stderr=subprocess.DEVNULL)
    while len(list_checkpoints(out / "checkpoints")) < 2 and training.poll() is None:
        time.sleep(0.05)
    training.kill()
    training.wait()
    assert 0 < newest_checkpoint(out / "checkpoints")[0]["update"] < 600
    assert main(["run", *command]) == 0
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == list(range(1, 601))
    assert rows[-1]["dev"] == {"largest": {"wer": 0.0}, "smallest": {"wer": 0.0}}
    assert json.loads((out / "run.json").read_text())["data"]["licence"] == "CC BY 4.0"
    assert len(list(out.glob("subnets/*/bundle/bundle.json"))) == 2
    assert (out / "report.html").exists()


def test_the_exact_loss_learns_them_too(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TODM_CACHE", str(tmp_path / "cache"))
    data = {"folder": str(corpus), "train": ["train-clean-5"], "dev": ["dev-clean"], "test": ["test-clean"]}
    changes = {"data": data, "model": {"loss": "exact"}, "training": {"updates": 500}}
    recipe, home = load_recipe("librispeech", changes, "quick")
    run = Run(tmp_path, recipe, home)
    trainer = Trainer(run.task(), recipe.training, tmp_path, recipe.seed)
    trainer.fit()
    assert trainer.evaluate() == {"largest": {"wer": 0.0}, "smallest": {"wer": 0.0}}


def test_the_test_parts_are_scored_each_by_itself_and_by_beam_search(corpus, tmp_path):
    data = LibriSpeechData(str(corpus), ["train-clean-5"], ["dev-clean"], ["test-clean"], pieces=40, beam=2)
    task = LibriSpeechTask(data, TransducerConfig(loss="pruned"), 0, tmp_path)
    metrics = task.evaluate(task.build().eval(), "test")
    assert list(metrics) == ["wer", "wer_test-clean", "wer_test-clean_beam"]
    assert list(tmp_path.glob("librispeech-*/train-clean-5.jsonl.gz"))
    again = LibriSpeechTask(data, TransducerConfig(), 0, tmp_path)
    assert again.corpus.tokens.symbols == task.corpus.tokens.symbols


def test_a_folder_without_the_parts_is_said(corpus, tmp_path):
    with pytest.raises(TodmError, match="has no folder 'train-clean-100'"):
        LibriSpeechTask(LibriSpeechData(str(corpus)), TransducerConfig(), 0, tmp_path)
