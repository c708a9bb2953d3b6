"""Both runtimes: float is the same model, int8 close and smaller, nothing slow hides, errors advise."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from toy import BANDS, FRAMES, HEADS, STATE, WIDTH, Joiner, transcribe

from todm.errors import TodmError
from todm.export import Bundle, Call, backend, compare, find_backend, record, write_bundle
from todm.export.backend import Precision
from todm.program import Method, Methods, Program, eager

RUNTIMES = ["onnx", "executorch"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_float_is_the_same_model(program: Program, calls: list[Call], pristine: Bundle, runtime: str) -> None:
    methods = pristine.methods(runtime)
    rows = compare(program, eager(program), methods, calls)
    assert [row["method"] for row in rows] == ["encode_chunk", "predict", "join"]
    assert max(row["max_abs"] for row in rows) < 1e-5
    assert transcribe(methods) == transcribe(eager(program))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_is_close_and_smaller(program: Program, calls: list[Call], pristine: Bundle, runtime: str) -> None:
    encode, predict, join = compare(program, eager(program), pristine.methods(runtime, "int8"), calls)
    assert 1e-4 < encode["max_rel"] < 0.03
    assert predict["max_abs"] < 1e-5 > join["max_abs"]
    assert pristine.size_bytes(runtime, "int8") < 0.6 * pristine.size_bytes(runtime)


def test_onnx_takes_several_streams_at_once(pristine: Bundle) -> None:
    encode = pristine.methods("onnx")["encode_chunk"]
    random = np.random.default_rng(2)
    shapes = (3, FRAMES, BANDS), (1, 3, BANDS), (1, 3, HEADS * STATE * WIDTH // HEADS)
    x, state0, state1 = (random.standard_normal(shape).astype(np.float32) for shape in shapes)
    together = encode(x, state0, state1)
    alone = [encode(x[i : i + 1], state0[:, i : i + 1], state1[:, i : i + 1]) for i in range(3)]
    for index, axis in enumerate((0, 1, 1)):
        np.testing.assert_allclose(together[index], np.concatenate([each[index] for each in alone], axis), atol=1e-5)


def test_every_onnx_file_has_the_metadata_and_no_path_of_this_machine(pristine: Bundle) -> None:
    paths = sorted((pristine.folder / "onnx" / "streaming").glob("*.onnx"))
    assert [path.name for path in paths] == [
        "decoder.onnx",
        "encoder.int8.onnx",
        "encoder.onnx",
        "joiner.onnx",
    ]
    for path in paths:
        model = onnx.load(path)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        assert properties["model_type"] == "lstm"
        assert properties["T"] == str(FRAMES)
        assert b".py" not in path.read_bytes()
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_int8_leaves_the_matrices_of_the_recurrence_in_float(pristine: Bundle) -> None:
    model = onnx.load(pristine.folder / "onnx" / "streaming" / "encoder.int8.onnx")
    ranks = {weight.name: len(weight.dims) for weight in model.graph.initializer}
    kinds = [(node.op_type, max(ranks.get(name, 0) for name in node.input)) for node in model.graph.node]
    assert ("MatMul", 3) in kinds
    assert kinds.count(("MatMulInteger", 2)) == 2


class Image(nn.Module):
    """Pictures (batch, 3, 16, 16) -> logits (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2),
            nn.ReLU(),
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3), keepdim=True).flatten(1))


@pytest.fixture(scope="module")
def image() -> Program:
    torch.manual_seed(0)
    inputs = {"x": torch.randn(1, 3, 16, 16)}
    return Program((Method("forward", "model", Image().eval(), inputs, ("y",), dynamic={"x": {0: "N"}}),))


def look(methods: Methods) -> None:
    random = np.random.default_rng(3)
    for _ in range(8):
        methods["forward"](random.standard_normal((1, 3, 16, 16)).astype(np.float32))


@pytest.mark.parametrize(
    ("runtime", "precision", "names", "bound"),
    [
        ("onnx", "float", ["model.onnx"], 1e-5),
        ("onnx", "int8", ["model.int8.onnx"], 0.03),
        ("executorch", "float", ["model.pte"], 1e-5),
        ("executorch", "int8", ["model.int8.pte"], 0.05),
    ],
)
def test_one_method_of_any_model(
    image: Program, tmp_path: Path, runtime: str, precision: Precision, names: list[str], bound: float
) -> None:
    runtime_backend = find_backend(runtime)
    calls = record(eager(image), look)
    files = runtime_backend.export(image, tmp_path, precision, calls)[""]
    assert [path.name for path in files] == names
    assert [path.parent for path in files] == [tmp_path / runtime]
    (row,) = compare(image, eager(image), runtime_backend.load(files[0].parent, precision), calls)
    assert row["calls"] == 8
    assert row["max_rel"] < bound


def test_int4_weights_are_smaller_still_and_not_far_off(program: Program, calls: list[Call], tmp_path: Path) -> None:
    """Only the feed-forward of the encoder is worth it; the recurrence, predictor and joiner stay as they are."""
    onnx_runtime, sizes = find_backend("onnx"), {}
    for precision in ("float", "int8", "int4"):
        files = onnx_runtime.export(program, tmp_path, precision, calls)["streaming"]
        sizes[precision] = files[0].stat().st_size
        assert [path.name for path in files[1:]] == ["decoder.onnx", "joiner.onnx"]
    assert files[0].name == "encoder.int4.onnx"
    kinds = [node.op_type for node in onnx.load(files[0]).graph.node]
    assert kinds.count("MatMulNBits") == 2
    assert sizes["int8"] - sizes["int4"] > 0.25 * 2 * 4 * WIDTH * WIDTH  # of a byte a weight, 3/8 are saved
    encode, predict, join = compare(program, eager(program), onnx_runtime.load(files[0].parent, "int4"), calls)
    assert 1e-3 < encode["max_rel"] < 0.2
    assert predict["max_abs"] < 1e-5 > join["max_abs"]


def test_a_bundle_has_the_precisions_that_its_runtimes_have(program: Program, tmp_path: Path) -> None:
    facts = {"name": "n", "arch": {}, "params": 1, "macs": 1, "metrics": {}, "data": {"name": "d", "license": "mit"}}
    small = replace(program, methods=program.methods[2:], variants={})
    made = write_bundle(tmp_path / "b", small, runtimes=["onnx", "executorch"], precisions=["float", "int4"], **facts)
    assert [(form["runtime"], form["precision"]) for form in made.forms()] == [
        ("onnx", "float"), ("onnx", "int4"), ("executorch", "float")
    ]  # fmt: skip
    with pytest.raises(TodmError, match="executorch writes float, int8, not int4"):
        write_bundle(tmp_path / "c", small, runtimes=["executorch"], precisions=["int4"], **facts)
    assert not (tmp_path / "c").exists()


def test_executorch_int8_has_embeddings_of_a_byte(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(400, 32), nn.ReLU(), nn.Linear(32, 8)).eval()
    whole = Program((Method("forward", "model", net, {"y": torch.tensor([[0, 1]])}, ("z",)),))
    calls = [("forward", (np.array([[i, 399 - i]]),)) for i in range(0, 400, 7)]
    sizes = {}
    for precision in ("float", "int8"):
        (path,) = find_backend("executorch").export(whole, tmp_path, precision, calls)[""]
        sizes[precision] = path.stat().st_size
        (row,) = compare(whole, eager(whole), find_backend("executorch").load(path.parent, precision), calls)
        assert row["max_rel"] < (1e-5 if precision == "float" else 0.03)
    assert sizes["float"] - sizes["int8"] > 400 * 32 * 3 - 400 * 4 - 2000  # three of four bytes, less a scale a row
    assert isinstance(net[0], nn.Embedding)


def test_static_int8_has_its_ranges_from_calibration(program: Program, calls: list[Call], tmp_path: Path) -> None:
    static = replace(program, methods=program.methods[:1], variants={}, static=True)
    executorch = find_backend("executorch")
    with pytest.raises(
        TodmError, match="linear layers with calibrated ranges of method 'encode_chunk' need calibration"
    ):
        executorch.export(static, tmp_path, "int8")
    assert not list(tmp_path.iterdir())
    (path,) = executorch.export(static, tmp_path, "int8", calls)[""]
    methods = executorch.load(path.parent, "int8")
    (row,) = compare(static, eager(static), methods, calls)
    assert row["max_rel"] < 0.1
    # Ten times louder than anything it was calibrated on: beyond the ranges values are cut off, and only there.
    loud = [(name, tuple(10 * value for value in values)) for name, values in calls]
    (row,) = compare(static, eager(static), methods, loud)
    assert row["max_rel"] > 0.1


def test_int8_convolutions_need_calibration(image: Program, tmp_path: Path) -> None:
    with pytest.raises(TodmError, match="convolutions of method 'forward' need calibration"):
        find_backend("executorch").export(image, tmp_path, "int8")


def test_export_leaves_the_terminal_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = torch.ones(1, WIDTH)
    join = Method("join", "joiner", Joiner().eval(), {"a": one, "b": one}, ("logits",))
    for runtime in RUNTIMES:
        find_backend(runtime).load(
            find_backend(runtime).export(Program((join,)), tmp_path, "float")[""][0].parent, "float"
        )
    assert capfd.readouterr() == ("", "")


class Echo:
    """A runtime from elsewhere."""

    name = "echo"

    def load(
        self, folder: Path, precision: Precision, threads: int = 1, methods: Sequence[str] | None = None
    ) -> Methods:
        return {"forward": lambda *inputs: inputs}

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__}


def offer(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    points = EntryPoints([EntryPoint("echo", value, "todm.backends")])
    monkeypatch.setattr(backend, "entry_points", lambda group: points)


def test_an_entry_point_adds_a_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer(monkeypatch, "test_backends:Echo")
    assert find_backend("echo").load(tmp_path, "float")["forward"](1) == (1,)


def test_unknown_runtime_names_the_known() -> None:
    with pytest.raises(TodmError, match="unknown runtime 'tflite'; choose one of: executorch, onnx"):
        find_backend("tflite")


@pytest.mark.parametrize(
    ("value", "advice"),
    [("todm.no_such:Echo", r"pip install 'todm\[echo\]'"), ("echo_kit.main:Echo", "pip install 'echo_kit'")],
)
def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, value: str, advice: str) -> None:
    offer(monkeypatch, value)
    with pytest.raises(TodmError, match=advice):
        find_backend("echo")
