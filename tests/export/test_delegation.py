"""What runs where is read off the files, and slow matrix work is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from todm.errors import TodmError
from todm.export import Bundle, delegation, write_bundle
from todm.program import Method, Program

FACTS = {"name": "n", "arch": {}, "params": 1, "macs": 1, "metrics": {}, "data": {"name": "d", "license": "mit"}}


def operator(op: str, fast: bool, ms: float) -> dict[str, object]:
    return {"file": "model.pte", "method": "forward", "op": op, "where": "here", "fast": fast, "ms": ms}


def test_shares_in_closed_form() -> None:
    operators = [
        operator("Fully Connected (NC, QD8, F32, QC8W) GEMM", True, 6.0),
        operator("Convert (NC)", True, 1.0),
        operator("bmm.out", False, 2.0),
        operator("native_layer_norm.out", False, 0.5),
        operator("native_layer_norm.out", False, 0.5),
    ]
    (row,) = delegation.summarise(operators)
    assert (row["nodes"], row["nodes_accelerated"], row["time_accelerated"]) == (5, 0.4, 0.7)
    assert (row["matrix_nodes"], row["matrix_accelerated"], row["matrix_integer"]) == (2, 0.5, 0.75)
    assert row["behind"] == [
        {"what": "forward: bmm.out", "nodes": 1, "time": 0.2, "matrix": True},
        {"what": "forward: native_layer_norm.out", "nodes": 2, "time": 0.1, "matrix": False},
    ]
    with pytest.raises(TodmError, match=r"only 50 % of the matrix work in model.pte.*100 %.*forward: bmm.out x1;"):
        delegation.check([row], 1.0)
    delegation.check([row], 0.5)
    assert "40 % of 5 nodes and 70 % of the time" in delegation.text([row])


@pytest.mark.parametrize(
    ("name", "matrix", "integer"),
    [
        ("MatMul", True, False), ("Gemm", True, False), ("FusedConv", True, False), ("MatMulInteger", True, True),
        ("DynamicQuantizeMatMul", True, True), ("addmm.out", True, False), ("mm.out", True, False),
        ("convolution.out", True, False), ("Convolution (NHWC, QC8) IGEMM", True, True),
        ("Convolution (NHWC, F32) IGEMM", True, False), ("Batch Matrix Multiply (NC, F32) GEMM", True, False),
        ("Convert (NC)", False, False), ("DequantizeLinear", False, True), ("Multiply (ND)", False, False),
        ("native_layer_norm.out", False, False), ("mul.out", False, False),
    ],
)  # fmt: skip
def test_names_of_matrix_work(name: str, matrix: bool, integer: bool) -> None:
    assert bool(delegation.MATRIX.search(name)) == matrix
    assert bool(delegation.INTEGER.search(name)) == integer


def test_the_files_of_a_bundle(pristine: Bundle) -> None:
    rows = {(row["runtime"], row["precision"], row["file"]): row for row in pristine.manifest["delegation"]}
    assert [key[2] for key in rows if key[:2] == ("onnx", "int8")] == [
        "decoder.onnx",
        "encoder.int8.onnx",
        "joiner.onnx",
    ]
    assert all(row["matrix_accelerated"] == 1 for row in rows.values())
    assert rows["onnx", "float", "encoder.onnx"]["nodes_accelerated"] == 1
    assert rows["onnx", "int8", "encoder.int8.onnx"]["matrix_nodes"] == 4
    assert 0.2 < rows["onnx", "int8", "encoder.int8.onnx"]["matrix_integer"] < 0.9
    for precision, integer in (("float", False), ("int8", True)):
        row = rows["executorch", precision, f"model.{'int8.' if integer else ''}pte"]
        behind = {entry["what"]: entry["nodes"] for entry in row["behind"]}
        assert behind["encode_chunk: native_layer_norm.out"] == 2
        assert behind["predict: embedding.out"] == 1
        assert not [what for what in behind if what.startswith("join")]
        assert row["nodes_accelerated"] == pytest.approx(1 - sum(behind.values()) / row["nodes"], abs=1e-4)
        assert 0.5 < row["time_accelerated"] < 1
        assert row["matrix_nodes"] == 6
        assert (row["matrix_integer"] > 0) == integer


class Bilinear(nn.Module):
    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, weight)


def test_matrix_work_outside_xnnpack_fails_the_export(tmp_path: Path) -> None:
    inputs = {"x": torch.ones(1, 4).double(), "weight": torch.ones(3, 4).double()}
    program = Program((Method("forward", "model", Bilinear().eval(), inputs, ("y",)),))
    options = {"runtimes": ["executorch"], "precisions": ["float"], **FACTS}
    with pytest.raises(TodmError, match=r"only 0 % of the matrix work in model.pte.*forward: .*mm.out x1") as error:
        write_bundle(tmp_path / "bundle", program, **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
    (row,) = write_bundle(tmp_path / "bundle", program, delegated=0.0, **options).manifest["delegation"]
    assert row["matrix_accelerated"] == 0
