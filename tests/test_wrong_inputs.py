"""What a user can get wrong, through the real command line: one clear line, exit 2, and nothing half-written."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.append(str(Path(__file__).parent / "export"))
from toy import streaming_program

from todm.checkpoint import list_checkpoints
from todm.cli import main
from todm.export.bundle import write_bundle

RECIPE = (
    f"name: toy\ntask: {Path(__file__).parent / 'toy_task.py'}:ToyTask\ntraining: {{updates: 4, checkpoint_every: 2}}\n"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a recipe, a trained run, a bundle and recordings."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "toy.yaml").write_text(RECIPE)
    assert main(["train", str(folder / "toy.yaml"), "--out", str(folder / "run")]) == 0
    write_bundle(
        folder / "bundle", streaming_program(), name="n", arch={}, params=1, macs=1, metrics={},
        data={"name": "d", "license": "mit"}, runtimes=["onnx"], precisions=["float"],
    )  # fmt: skip
    soundfile.write(folder / "good.wav", np.zeros(8000), 16_000)
    soundfile.write(folder / "empty.wav", np.zeros(0), 16_000)
    soundfile.write(folder / "nan.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(folder / "slow.wav", np.zeros(8000), 1_000)
    (folder / "noise.wav").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "text.wav").write_text("not audio\n")
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    """A copy of it to work in, where the cache is too."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TODM_CACHE", str(tmp_path / "here" / "cache"))
    return tmp_path / "here"


def listing(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.name != ".lock")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in files}


def truncate(place: Path) -> None:
    for path in list_checkpoints(place / "run" / "checkpoints"):
        path.write_bytes(path.read_bytes()[:-100])


def edit_bundle(place: Path) -> None:
    path = place / "bundle" / "onnx" / "streaming" / "tokens.txt"
    path.write_text(path.read_text().replace("a 1", "b 1"))


def edit_manifest(place: Path) -> None:
    path = place / "bundle" / "bundle.json"
    path.write_text(path.read_text().replace('"params": 1', '"params": 2'))


def edit_recipe(place: Path) -> None:
    (place / "run" / "recipe.yaml").write_text("name: [\n")


def other_recipe(place: Path) -> None:
    (place / "run" / "recipe.yaml").write_text(RECIPE + "trainnig: {}\n")


CASES = [
    # unknown key
    ("train digits --training.updtes 5", "unknown key 'training.updtes'; did you mean 'updates'?"),
    ("train digits --data.trian 5", "data: unknown key 'trian'; did you mean 'train'?"),
    ("train digits --model.encoder.hiden [8]", "model: unknown key 'encoder.hiden'; did you mean 'hidden'?"),
    ("train toy.yaml --data.btach 5", "data: unknown key 'btach'; did you mean 'batch'?"),
    ("run toy.yaml --seads 2", "unknown key 'seads'; did you mean 'seed'?"),
    # wrong type
    ("train digits --training.updates lots", "training.updates: Input should be a valid integer"),
    ("train digits --model.encoder.hidden [0,64]", "encoder.hidden.0: Input should be greater than or equal to 1"),
    ("train digits --model.encoder.heads [3]", "heads and head_size must be even"),
    ("search run --trials many", "argument --trials: invalid int value: 'many'"),
    ("extract run {depth:", "--arch '{depth:'"),
    ('extract run {"depth":9}', "must be one of"),
    # missing file
    ("train nowhere", "no recipe 'nowhere'"),
    ("train digits --data no/such/folder", "no/such/folder"),
    ("search nowhere", "nowhere is not a run folder"),
    ("report nowhere", "nowhere is no"),
    ("export run/subnets/none", "none"),
    ("bench nowhere", "nowhere is not a bundle"),
    ("transcribe bundle nowhere.wav", "nowhere.wav is not a file"),
    ("transcribe bundle bundle", "bundle is not a file"),
    ("transcribe bundle", "name audio files to transcribe, or type --microphone"),
    ("transcribe bundle good.wav --microphone", "name audio files to transcribe, or type --microphone"),
    ("transcribe bundle good.wav --device raspi9", "unknown device 'raspi9'"),
    ("transcribe bundle good.wav --device browser", "transcribe works on this machine, not on browser"),
    ("verify nowhere", "nowhere is not a bundle"),
    ("advise run --budget size<=1MB", "run has no search results; type: todm search run --device local"),
    ("advise run --budget size<=1MB --device raspi9", "unknown device 'raspi9'"),
    # wrong audio
    ("transcribe bundle empty.wav", "empty.wav holds no samples"),
    ("transcribe bundle nan.wav --stream", "nan.wav holds NaN or infinite samples"),
    ("transcribe bundle slow.wav", "slow.wav holds 1000 samples a second, too few for speech"),
    ("transcribe bundle good.wav noise.wav", "noise.wav is not readable audio"),
    ("transcribe bundle text.wav", "text.wav is not readable audio"),
    ("transcribe bundle good.wav --runtime executorch", "has no executorch float files; it has: onnx float"),
    ("transcribe bundle good.wav --precision int4", "has no onnx int4 files"),
    # damaged or edited
    (truncate, "extract run smallest", "update-0000004.safetensors is damaged"),
    (truncate, "search run", "update-0000004.safetensors is damaged"),
    (truncate, "train toy.yaml --out run --resume auto", "update-0000004.safetensors is damaged"),
    (edit_bundle, "transcribe bundle good.wav", "tokens.txt was damaged or edited"),
    (edit_bundle, "bench bundle", "tokens.txt was damaged or edited"),
    (edit_bundle, "verify bundle --json", "tokens.txt was damaged or edited"),
    (edit_manifest, "bench bundle", "bundle.json was damaged or edited"),
    (edit_recipe, "search run", "recipe.yaml is not valid YAML"),
    (other_recipe, "extract run smallest", "unknown key 'trainnig'"),
    # budget typo
    ("search run --budget sise<=1MB", "sise"),
    ("search run --budget size<=1XB", "1XB"),
    ("search run --budget size=1MB", "size=1MB"),
    # unknown device or runtime
    ("bench bundle --device raspi9", "unknown device 'raspi9'; known: browser, local"),
    ("search run --device raspi9", "unknown device 'raspi9'"),
    ("run toy.yaml --out other --export.device raspi9", "unknown device 'raspi9'"),
    ("run toy.yaml --out other --export.runtimes [onx]", "unknown runtime 'onx'"),
    ("run toy.yaml --export.precisions [int8]", "device local measures float: add it to export.precisions"),
    ("run toy.yaml --export.precisions [int4]", "executorch writes float, int8: add one to export.precisions"),
    # a folder that cannot be written (permissions do not stop root: below a file, and in /proc)
    ("train toy.yaml --out good.wav/run", "cannot write good.wav/run"),
    ("train toy.yaml --out good.wav", "cannot write good.wav"),
    ("run toy.yaml --out /proc/run", "cannot write /proc/run"),
]


@pytest.mark.parametrize(("case"), CASES, ids=lambda case: " ".join(map(str, case[-2].split()))[:60])
def test_wrong_input(place, capsys, case):
    harm, command, message = case if len(case) == 3 else (None, *case)
    if harm:
        harm(place)
    before = listing(place)
    assert main(command.split(" ")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("todm: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert message in err
    assert "Traceback" not in err
    assert listing(place) == before


@pytest.mark.parametrize(
    ("harm", "command"),
    [(truncate, "train toy.yaml --out run --resume auto"), (edit_bundle, "transcribe bundle good.wav")],
)
def test_the_process_says_the_same(place, capsys, harm, command):
    harm(place)
    assert main(command.split()) == 2
    line = capsys.readouterr().err
    done = subprocess.run([sys.executable, "-m", "todm", *command.split()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_the_good_inputs_are_good(place, capsys):
    """Or all of the above would fail for another reason."""
    assert main(["train", "toy.yaml", "--out", "run", "--resume", "auto"]) == 0
    assert main(["extract", "run", "smallest", "--name", "small"]) == 0
    assert (place / "run" / "subnets" / "small" / "subnet.safetensors").stat().st_size > 1000
    assert main(["bench", "bundle"]) == 0
    assert "latency_p90_ms" in capsys.readouterr().out
