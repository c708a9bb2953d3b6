"""The recipes on MNIST by the verbs a user types, at their smallest setting, on made-up pictures."""

import csv
import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from todm.cli import main
from todm.export.bundle import load_bundle

FEW = ["--data.train", "500", "--data.dev", "100", "--data.test", "100", "--data.batch", "50"]


@pytest.fixture
def command(small_mnist, monkeypatch):
    """Options for a run in this process: one that is spawned would not know the checksum of the made-up pictures."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    return ["--quick", "--data", str(small_mnist), *FEW]


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_standout_mnist_gives_a_family_on_both_runtimes(command, tmp_path):
    out = tmp_path / "run"
    assert main(["run", "standout_mnist", *command, "--export.precisions", "[float]", "--out", str(out)]) == 0
    bench, parity = table(out / "bench.csv"), table(out / "parity.csv")
    assert {row["runtime"] for row in bench} == {"onnx", "executorch"}
    assert len({row["params"] for row in bench}) == 2
    assert all(float(row["max_abs_diff"]) < 1e-4 and row["outputs_changed"] == "0" for row in parity)
    # Half of the classes by guessing would be 90 % wrong.
    assert min(float(row["error"]) for row in bench) < 60


def test_duality_lenet_exports_the_pruned_net(command, tmp_path):
    out = tmp_path / "run"
    options = ["--export.runtimes", "[onnx]", "--export.precisions", "[float]", "--out", str(out)]
    assert main(["run", "duality_lenet", *command, *options]) == 0
    for folder in (out / "subnets").iterdir():
        weights = {name: w for name, w in load_file(folder / "subnet.safetensors").items() if w.ndim == 2}
        share = 100 * sum(map(np.count_nonzero, weights.values())) / sum(w.size for w in weights.values())
        assert json.loads((folder / "metrics.json").read_text())["dev"]["nonzero"] == pytest.approx(share)
        assert 0 < share < 50
        assert load_bundle(folder / "bundle").methods("onnx", "float")["forward"]
        (file,) = (folder / "bundle").rglob("*.onnx")
        stored = [numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer]
        exported = sum(int(np.count_nonzero(w)) for w in stored if w.ndim == 2)
        assert exported == sum(map(np.count_nonzero, weights.values()))


@pytest.mark.parametrize(("recipe", "rows"), [("standout_mnist", 10), ("duality_lenet", 8)])
def test_every_row_of_a_comparison_trains(small_mnist, tmp_path, monkeypatch, recipe, rows):
    monkeypatch.setenv("TODM_CACHE", str(tmp_path / "cache"))
    few = ["--data", str(small_mnist), *FEW, "--training.updates", "6", "--training.evaluate_every", "6"]
    assert main(["compare", recipe, "--quick", "--seeds", "1", *few, "--out", str(tmp_path / "out")]) == 0
    results = table(tmp_path / "out" / "results.csv")
    assert len({row["row"] for row in results}) == len(results) == rows
    assert all(0 <= float(row["error"]) <= 100 for row in results)
