"""A bundle is checked anywhere: checksums, parity on the calls it carries, delegation; any breach is exit code 2."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from todm.cli import main
from todm.export import Bundle, load_bundle
from todm.export.proof import replay
from todm.export.verify import FLOAT, verify


@pytest.fixture
def copy(pristine: Bundle, tmp_path: Path) -> Bundle:
    return load_bundle(shutil.copytree(pristine.folder, tmp_path / "copy"))


def test_a_good_bundle(pristine: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(pristine.folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["breaches"] == [] and result["files"] == len(pristine.manifest["files"])
    forms = [(row["runtime"], row["precision"], row["method"]) for row in result["parity"]]
    assert forms == [
        (runtime, precision, method)
        for runtime in ("onnx", "executorch")
        for precision in ("float", "int8")
        for method in ("encode_chunk", "predict", "join")
    ]
    for row in result["parity"]:
        narrow = row["precision"] == "int8" and row["method"] == "encode_chunk"
        assert (row["max_rel"] > FLOAT) == narrow
        assert row["max_rel"] < row["limit"]
    assert all(row["matrix_accelerated"] == 1 for row in result["delegation"])
    assert main(["verify", str(pristine.folder)]) == 0
    assert "files have their checksums" in capsys.readouterr().out


def test_the_carried_answers_are_of_whole_streams(pristine: Bundle) -> None:
    with np.load(pristine.folder / "proof.npz") as proof:
        count = int(proof["encode_chunk.calls"])
        assert [index for index in range(count) if proof[f"encode_chunk.{index}.begins"]] == [0, 12]
        assert proof["encode_chunk.3.x"].shape == (1, 8, 16)
        assert "encode_chunk.3.state0" not in proof and "encode_chunk.3.next_state1" not in proof
    rows = replay(pristine, "onnx", "float", "streaming")
    assert max(row["max_rel"] for row in rows) < 1e-5


def swap(bundle: Bundle) -> None:
    """Other weights in a file, with every checksum made anew: only running it tells."""
    name = "onnx/streaming/joiner.onnx"
    content = bytearray((bundle.folder / name).read_bytes())
    import onnx

    model = onnx.load_from_string(bytes(content))
    weight = next(each for each in model.graph.initializer if len(each.dims) == 2)
    values = np.frombuffer(weight.raw_data, np.float32) * np.float32(1.02)
    weight.raw_data = values.tobytes()
    bundle.record(files={name: model.SerializeToString()})


def test_another_model_under_fresh_checksums_breaks_parity(copy: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    swap(copy)
    load_bundle(copy.folder)
    assert main(["verify", str(copy.folder), "--json"]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "parity is broken: join of onnx float" in err
    assert len(json.loads(out)["breaches"]) == 2


def test_a_damaged_file(copy: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy.folder / "executorch" / "model.pte"
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["verify", str(copy.folder)]) == 2
    assert capsys.readouterr().err.count("model.pte was damaged or edited") == 1


def test_less_delegation_than_was_asked_for(copy: Bundle) -> None:
    copy.record(delegated=1.01)
    breaches = verify(copy.folder)["breaches"]
    assert len(breaches) == 4 and all("101 % is asked for" in breach for breach in breaches)
