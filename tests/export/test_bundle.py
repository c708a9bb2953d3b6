"""A bundle is whole or an error: made in one stroke, every later change of a byte noticed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from toy import WIDTH, Joiner

from todm.errors import TodmError
from todm.export import Bundle, bundle, card, load_bundle, write_bundle
from todm.files import sha256
from todm.program import Method, Program

FACTS = {
    "name": "n",
    "arch": {},
    "params": 1,
    "macs": 1,
    "metrics": {},
    "data": {"name": "d", "license": "mit"},
}
ROW = {"runtime": "onnx", "precision": "int8", "latency_p50_ms": 1.5, "latency_p90_ms": 2.25, "rtf": 0.125}
ROW |= {"wer": 2.75, "device": "local", "cpu": "a CPU", "threads": 1}


@pytest.fixture
def small() -> Program:
    one = torch.ones(1, WIDTH)
    method = Method("join", "joiner", Joiner().eval(), {"encoder_out": one, "decoder_out": one}, ("logits",))
    return Program((method,))


@pytest.fixture
def copy(pristine: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine.folder, tmp_path / "copy"))


def test_the_manifest_describes_program_and_files(pristine: Bundle, program: Program) -> None:
    manifest = load_bundle(pristine.folder).manifest
    encode = manifest["program"]["methods"][0]
    assert encode["inputs"][0] == {"name": "x", "shape": [1, 8, 16], "dtype": "float32"}
    assert encode["states"] == {"next_state0": "state0", "next_state1": "state1"}
    assert [method["calls"] for method in manifest["program"]["methods"]] == [1.0, 1.5, 4.0]
    assert manifest["arch"] == {"depth": 1, "ff": 256}
    assert manifest["data"]["license"] == "cc0-1.0"
    on_disk = {str(path.relative_to(pristine.folder)) for path in pristine.folder.rglob("*") if path.is_file()}
    assert on_disk == {*manifest["files"], "bundle.json"}
    for name, entry in manifest["files"].items():
        assert entry == {
            "sha256": sha256(pristine.folder / name),
            "size_bytes": (pristine.folder / name).stat().st_size,
        }


def test_files_are_all_a_device_needs(pristine: Bundle) -> None:
    names = [path.name for path in pristine.files("onnx", "int8")]
    assert names == ["encoder.int8.onnx", "decoder.onnx", "joiner.onnx", "tokens.txt"]
    assert pristine.size_bytes("onnx", "int8") == sum(
        (pristine.folder / "onnx" / "streaming" / name).stat().st_size for name in names
    )
    assert [path.name for path in pristine.files("executorch")] == ["model.pte", "tokens.txt"]
    with pytest.raises(TodmError, match="no coreml float files; it has: onnx float/int8, executorch float/int8"):
        pristine.files("coreml")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace("2.5", "1.5"))


def set_schema(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("executorch/model.pte", flip, r"model.pte was damaged or edited"),
        (
            "onnx/streaming/tokens.txt",
            lambda path: path.write_text("<blk> 0\n"),
            "tokens.txt was damaged or edited",
        ),
        ("README.md", edit, "README.md was damaged or edited"),
        ("onnx/streaming/decoder.onnx", Path.unlink, "decoder.onnx is missing"),
        ("bundle.json", edit, "bundle.json was damaged or edited"),
        ("bundle.json", lambda path: path.write_text("{"), "not valid JSON"),
        ("bundle.json", lambda path: path.write_text("[]"), "has schema None"),
        ("bundle.json", set_schema, "has schema 99, this todm reads 2"),
        ("bundle.json", Path.unlink, "is not a bundle"),
    ],
)
def test_harm_is_one_clear_line(copy: Path, name: str, harm: Callable[[Path], object], message: str) -> None:
    load_bundle(copy)
    harm(copy / name)
    with pytest.raises(TodmError, match=message) as error:
        load_bundle(copy)
    assert "\n" not in str(error.value)


def test_a_failed_export_leaves_nothing(tmp_path: Path, small: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> Path:
        raise TodmError("no space left")

    monkeypatch.setattr(bundle, "atomic_write", full)
    with pytest.raises(TodmError, match="no space left"):
        write_bundle(tmp_path / "bundle", small, runtimes=["onnx"], precisions=["float"], **FACTS)
    assert not list(tmp_path.iterdir())


def test_another_folder_is_not_overwritten(tmp_path: Path, small: Program) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(TodmError, match="exists and is not a bundle"):
        write_bundle(tmp_path, small, **FACTS)
    assert (tmp_path / "thesis.txt").exists()


def test_a_bundle_is_replaced_by_its_successor(copy: Path, small: Program) -> None:
    write_bundle(copy, small, runtimes=["onnx"], precisions=["float"], **FACTS)
    assert load_bundle(copy).manifest["name"] == "n"
    assert not (copy / "executorch").exists()
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_folder_that_cannot_be_made(tmp_path: Path, small: Program) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TodmError, match=r"cannot write .*Not a directory"):
        write_bundle(tmp_path / "file" / "bundle", small, **FACTS)


def test_measurements_are_added_and_reach_the_card(copy: Path) -> None:
    opened = load_bundle(copy)
    opened.record(measurements=[ROW])
    opened.record(measurements=[{**ROW, "precision": "float"}], metrics={"wer": 2.0})
    again = load_bundle(copy)
    assert [row["precision"] for row in again.manifest["measurements"]] == ["int8", "float"]
    assert again.manifest["metrics"] == {"wer": 2.0}
    size = again.size_bytes("onnx", "int8") / 1e6
    row = f"| onnx | int8 | {size:.2f} | 2.75 | 1.50 / 2.25 | 0.125 | local: a CPU, threads 1 |"
    assert row in (copy / "README.md").read_text()


def test_the_card_has_front_matter_and_commands_that_fit_the_files(pristine: Bundle) -> None:
    text = (pristine.folder / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "cc0-1.0"
    assert front["pipeline_tag"] == "automatic-speech-recognition"
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "wer", "value": 2.5}]
    assert "todm transcribe . a.wav" in text
    command = next(line for line in text.splitlines() if line.startswith("sherpa-onnx "))
    for argument in command.split()[1:-1]:
        assert (pristine.folder / argument.split("=")[1]).is_file()
    assert bundle.MANIFEST in text


def test_opening_a_bundle_waits_for_no_torch(pristine: Bundle) -> None:
    code = "import sys, todm.export; todm.export.load_bundle(sys.argv[1]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, str(pristine.folder)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


KILLED = """
import os, sys
from todm.export import load_bundle
bundle, left = load_bundle(sys.argv[1]), int(sys.argv[2])

def once(function):
    def call(*arguments):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return function(*arguments)
    return call

# Every rename is a moment at which a process can die with the one before done.
os.replace, os.rename = once(os.replace), once(os.rename)
bundle.record(files={"extra.svg": b"<svg/>"}, metrics={"wer": 1.25})
"""


def test_a_kill_between_any_two_renames_leaves_a_whole_bundle(pristine: Bundle, tmp_path: Path) -> None:
    codes, seen = [], []
    for renames in range(8):
        folder = shutil.copytree(pristine.folder, tmp_path / str(renames))
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(renames)])
        codes.append(done.returncode)
        again = load_bundle(folder)
        seen.append(again.manifest["metrics"]["wer"])
        assert ("extra.svg" in again.manifest["files"]) == (seen[-1] == 1.25)
        assert f"'value': {seen[-1]}" in str(yaml.safe_load((folder / "README.md").read_text().split("---\n")[1]))
    assert seen == sorted(seen, reverse=True) and set(seen) == {2.5, 1.25}
    assert codes[0] == 9 and codes[-1] == 0


def test_the_card_tells_of_training_delegation_and_the_family(copy: Path) -> None:
    load_bundle(copy).record(files={"front.svg": b"<svg/>"}, run={"name": "digits", "seed": 3, "git_commit": None})
    text = (copy / "README.md").read_text()
    assert "](front.svg)" in text and "- name: digits\n- seed: 3\n" in text and "git commit" not in text
    row = next(line for line in text.splitlines() if line.startswith("| executorch model.pte |"))
    assert "| 100 % |" in row and "encode_chunk: native_layer_norm.out x2" in row
    assert load_bundle(copy).manifest["run"]["seed"] == 3


@pytest.mark.parametrize(
    ("name", "front"),
    [
        ("CC BY-SA 4.0", {"license": "cc-by-sa-4.0"}),
        ("mit", {"license": "mit"}),
        ("LDC user agreement", {"license": "other", "license_name": "LDC user agreement"}),
    ],
)
def test_licenses_as_hugging_face_names_them(name: str, front: dict[str, str]) -> None:
    assert card._license(name) == front
