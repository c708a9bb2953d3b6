"""The parity chain on a net whose int8 is good, mendable or hopeless."""

from pathlib import Path

import pytest
import torch
from torch import nn

from todm.errors import TodmError
from todm.export import Bundle, write_bundle
from todm.export.onnx import Onnx
from todm.program import Method, Methods, Program
from todm.proof import Chain, within_loss
from todm.task import Score

FACTS = {
    "name": "n",
    "arch": {},
    "params": 1,
    "macs": 1,
    "metrics": {"wer": 0.0},
    "data": {"name": "d", "license": "mit"},
}


class Sorter:
    """A task whose samples are vectors, decided on by the largest output; the PyTorch net is right by definition."""

    def __init__(self, outlier: float) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(*(nn.Linear(16, 16) for _ in range(4))).eval()
        for layer in self.net:
            nn.init.orthogonal_(layer.weight)
        samples = torch.randn(600, 1, 16)
        with torch.no_grad():
            best, second = self.net(samples)[:, 0].topk(2).values.unbind(1)
            samples = samples[(best - second).argsort(descending=True)[:60]]  # int8 may decide close calls otherwise
            self.right = self.net(samples)[:, 0].argmax(1).tolist()
            # One input is `outlier` times larger, its weights as much smaller: the same function.
            self.net[0].weight[:, 0] /= outlier
            samples[..., 0] *= outlier
        self.samples = samples.numpy()

    def program(self, net: nn.Module) -> Program:
        return Program((Method("forward", "model", net, {"x": torch.zeros(1, 16)}, ("y",)),))

    def score(self, program: Program, methods: Methods, split: str) -> Score:
        said = [int(methods["forward"](x)[0].argmax()) for x in self.samples]
        wrong = sum(a != b for a, b in zip(said, self.right, strict=True))
        return Score({"wer": 100 * wrong / len(said)}, list(map(str, said)))


def proved(task: Sorter, folder: Path, most: float | None) -> tuple[Bundle, Chain, list[list[str]]]:
    chain, tried = Chain(task, task.program(task.net)), []  # type: ignore[arg-type]

    def build(kept, before) -> Bundle:
        tried.append(sorted(kept.get("onnx", ())))
        return write_bundle(
            folder / "bundle", chain.program, runtimes=["onnx"], calibration=chain.recorded(), kept=kept,
            before=before, **FACTS,
        )  # fmt: skip

    return within_loss(chain, ["onnx"], most, build), chain, tried


def test_the_layer_that_costs_the_error_returns_to_float(tmp_path: Path) -> None:
    bundle, chain, tried = proved(Sorter(outlier=300.0), tmp_path, 5.0)
    assert tried == [[], ["forward.0"]]
    assert bundle.manifest["runtimes"]["onnx"]["float_layers"] == ["forward.0"]
    assert bundle.size_bytes("onnx", "int8") < bundle.size_bytes("onnx")
    rows = {row["form"]: row for row in chain.file_rows(bundle)}
    assert list(rows) == ["onnx float", "onnx int8"]
    assert rows["onnx float"]["max_rel_diff"] < 1e-5
    assert rows["onnx float"]["outputs_changed"] == 0 == rows["onnx float"]["wer"]
    assert 1e-4 < rows["onnx int8"]["max_rel_diff"] < 0.1
    assert rows["onnx int8"]["wer"] <= 5.0
    assert rows["onnx int8"]["size_bytes"] == bundle.size_bytes("onnx", "int8")


def test_what_a_layer_in_float_does_not_change_is_not_exported_again(tmp_path: Path, monkeypatch) -> None:
    made, export = [], Onnx.export

    def counted(self, program, folder, precision, calibration=()):
        made.append(precision)
        return export(self, program, folder, precision, calibration)

    monkeypatch.setattr(Onnx, "export", counted)
    bundle, _, tried = proved(Sorter(outlier=300.0), tmp_path, 5.0)
    assert len(tried) == 2
    assert made == ["float", "int8", "int8"]
    assert sorted(path.name for path in bundle.folder.glob("onnx/*")) == ["model.int8.onnx", "model.onnx"]


def test_a_hopeless_one_fails_and_says_what_each_layer_costs(tmp_path: Path) -> None:
    with pytest.raises(
        TodmError, match=r"onnx int8 costs .* points .* in one layer makes: forward\.0 .*forward\."
    ) as error:
        proved(Sorter(outlier=300.0), tmp_path, -100.0)
    assert "\n" not in str(error.value)


def test_without_a_budget_int8_is_as_it_is(tmp_path: Path) -> None:
    _, chain, tried = proved(Sorter(outlier=1.0), tmp_path, None)
    assert tried == [[]]
    assert [call for call, _ in chain.carried()] == ["forward"] * 60
