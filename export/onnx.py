"""ONNX files, one per method, for ONNX Runtime and whatever else reads them.

The exporter is imported where it is used: loading needs the runtime alone.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from todm.errors import TodmError
from todm.export.backend import Precision, quiet
from todm.export.calibrate import Call
from todm.export.quantize import kept_weights
from todm.export.runner import load_onnx, trace_onnx
from todm.export.sherpa import check_layout, metadata
from todm.files import atomic_write
from todm.program import Method, Methods, Program

if TYPE_CHECKING:
    from onnx import ModelProto


class Onnx:
    """`onnx/<variant>/<file>.onnx`, and `<file>.int8.onnx`, `<file>.int4.onnx` for the methods these apply to."""

    name = "onnx"
    precisions: tuple[Precision, ...] = ("float", "int8", "int4")
    apart = True

    def export(
        self, program: Program, folder: Path, precision: Precision, calibration: Sequence[Call] = ()
    ) -> dict[str, list[Path]]:
        """Dynamic int8 on MatMul and Gemm, and int4 weights, find ranges at run time: `calibration` is not used.

        Raises:
            TodmError: the client that a file's layout is made for would miss a metadata entry.
        """
        files: dict[str, list[Path]] = {}
        written: dict[str, Path] = {}
        check_layout(program)
        for variant, methods in program.ways().items():
            home = folder / self.name / variant
            files[variant] = [_write(program, method, home, precision, written) for method in methods]
        return files

    def load(
        self, folder: Path, precision: Precision, threads: int = 1, methods: Sequence[str] | None = None
    ) -> Methods:
        """int8 and int4 take their files where there are, the float file elsewhere."""
        with quiet():
            return load_onnx(folder, precision, threads, methods)

    def trace(self, folder: Path, precision: Precision, threads: int, program: dict[str, Any]) -> list[dict[str, Any]]:
        """By ONNX Runtime's profiler."""
        with quiet():
            return trace_onnx(folder, precision, threads, program)

    def versions(self) -> dict[str, str]:
        """Of the writers and of the runtime."""
        return {package: version(package) for package in ("torch", "onnx", "onnxscript", "onnxruntime")}


def _write(program: Program, method: Method, folder: Path, precision: Precision, written: dict[str, Path]) -> Path:
    """Write a method's file, or copy what another variant has `written` of it."""
    name = f"{method.file}.{precision}.onnx" if precision != "float" and method.quantize else f"{method.file}.onnx"
    if method.name in written:
        return atomic_write(folder / name, written[method.name].read_bytes())
    written[method.name] = _convert(program, method, folder, precision)
    return written[method.name]


def _convert(program: Program, method: Method, folder: Path, precision: Precision) -> Path:
    import onnx

    path = folder / f"{method.file}.onnx"
    if precision == "float" or not path.exists():
        atomic_write(path, _described(_converted(method), program, method))
    if precision == "float" or not method.quantize:
        return path
    model = onnx.load(path)
    # Matrices of a recurrence have rank 3. They are small, and their errors come back with the states.
    ranks = {weight.name: len(weight.dims) for weight in model.graph.initializer}
    left = {name for name, rank in ranks.items() if rank > 2} | _kept(model, method)
    kept = [node.name for node in model.graph.node if left.intersection(node.input)]
    target = folder / f"{method.file}.{precision}.onnx"
    with quiet():
        model = (_int8 if precision == "int8" else _int4)(model, kept, target.with_name(f".{target.name}.part"))
    return atomic_write(target, _described(model, program, method))


def _int8(model: "ModelProto", kept: list[str], temporary: Path) -> "ModelProto":
    """Signed weights, one scale a tensor: the quickest variant, and no other is more accurate."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kept = [*kept, *(f"{name}_MatMul" for name in kept)]  # what the quantiser makes of a Gemm
    options = {"op_types_to_quantize": ["MatMul", "Gemm"], "weight_type": QuantType.QInt8}
    quantize_dynamic(model, temporary, nodes_to_exclude=kept, **options)
    model = onnx.load(temporary)
    temporary.unlink()
    return model


def _int4(model: "ModelProto", kept: list[str], temporary: Path) -> "ModelProto":
    """Weights on 16 levels, one scale for 32 of them; activations in int8. A Gemm has no such kernel: it is int8."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        model, bits=4, block_size=32, is_symmetric=True, accuracy_level=4, nodes_to_exclude=kept
    )
    quantizer.process()
    return _int8(quantizer.model.model, kept, temporary)


def _kept(model: "ModelProto", method: Method) -> set[str]:
    """Initializers that are weights int8 leaves in float; the exporter transposes and renames them."""
    from onnx.numpy_helper import to_array

    kept = [weight.detach().numpy() for weight in kept_weights(method)]
    return {
        constant.name
        for constant in (model.graph.initializer if kept else ())
        for weight in kept
        if any(
            list(constant.dims) == list(w.shape) and np.array_equal(to_array(constant), w) for w in (weight, weight.T)
        )
    }


def _converted(method: Method) -> "ModelProto":
    """The exporter fixes an axis of size 1 for good, so it is shown a dynamic axis with size 2. It takes two
    inputs that are one tensor for one input, so it is given copies.
    """
    names = {symbol for axes in method.dynamic.values() for symbol in axes.values()}
    symbols = {name: torch.export.Dim(name) for name in names}
    examples, shapes = [], []
    for name, example in method.inputs.items():
        axes = method.dynamic.get(name, {})
        for axis in axes:
            example = example if example.shape[axis] > 1 else torch.cat([example, example], axis)
        examples.append(example.clone())
        shapes.append({axis: symbols[symbol] for axis, symbol in axes.items()})
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            method.module,
            tuple(examples),
            dynamic_shapes=tuple(shapes),
            input_names=list(method.inputs),
            output_names=list(method.outputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise TodmError(f"the ONNX exporter gave nothing for method {method.name!r}")
    return program.model_proto


def _described(model: "ModelProto", program: Program, method: Method) -> bytes:
    """With our metadata, and without the exporter's: source lines and paths, a tenth of a small file."""
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    from onnx.helper import set_model_props

    set_model_props(model, metadata(program, method))
    return model.SerializeToString()
