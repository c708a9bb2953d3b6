"""ExecuTorch: one .pte with every method, its matrix work on XNNPACK, static shapes at batch 1.

The exporter is imported where it is used: it takes seconds, and loading needs the runtime alone.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import Dim, ExportedProgram, export
from torch.fx import config as fx
from torch.fx.traceback import NodeSource

from todm.errors import TodmError
from todm.export.backend import Precision, quiet
from todm.export.calibrate import Call
from todm.export.quantize import kept_weights, with_int8_embeddings
from todm.export.runner import load_executorch, trace_executorch
from todm.files import atomic_write
from todm.program import Method, Methods, Program


class ExecuTorch:
    """`executorch/model.pte` and `executorch/model.int8.pte`."""

    name = "executorch"
    precisions: tuple[Precision, ...] = ("float", "int8")
    apart = False

    def export(
        self, program: Program, folder: Path, precision: Precision, calibration: Sequence[Call] = ()
    ) -> dict[str, list[Path]]:
        """One file for all variants. int8 finds ranges of linear layers at run time, convolutions need `calibration`.

        Raises:
            TodmError: int8 convolutions lack calibration.
        """
        with quiet(), torch.no_grad(), _lean():
            exported = {}
            for method in program.methods:
                narrow = precision == "int8" and method.quantize
                module = with_int8_embeddings(method.module) if narrow else method.module
                exported[method.name] = _exported(method, module)
                if narrow:
                    calls = [inputs for name, inputs in calibration if name == method.name]
                    exported[method.name] = _int8(method, exported[method.name], calls, program.static)
            data = _lowered(exported)
        name = "model.int8.pte" if precision == "int8" else "model.pte"
        path = atomic_write(folder / self.name / name, data)
        return {variant: [path] for variant in program.ways()}

    def load(
        self, folder: Path, precision: Precision, threads: int = 1, methods: Sequence[str] | None = None
    ) -> Methods:
        """Threads are the whole process's: a change of them ends the use of programs loaded before."""
        with quiet():
            return load_executorch(folder, precision, threads, methods)

    def trace(self, folder: Path, precision: Precision, threads: int, program: dict[str, Any]) -> list[dict[str, Any]]:
        """By the runtime's event tracer."""
        with quiet():
            return trace_executorch(folder, precision, threads, program)

    def versions(self) -> dict[str, str]:
        """Of the writers; the runtime comes with them."""
        return {package: version(package) for package in ("torch", "executorch", "torchao")}


def _int8(
    method: Method, exported: ExportedProgram, calls: Sequence[tuple[np.ndarray, ...]], static: bool
) -> ExportedProgram:
    """PT2E. Linear layers: weights by channel, activations by the range of the call at hand, which errs a
    fourth as much as calibrated (`static`) ranges and is as fast. Convolutions: calibrated, XNNPACK has no other.
    """
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    runs = [_examples(method)]
    if static or any(str(node.target).startswith("aten.conv") for node in exported.graph.nodes):
        runs = [tuple(map(torch.from_numpy, inputs)) for inputs in calls]
        if not runs:
            what = "linear layers with calibrated ranges" if static else "convolutions"
            raise TodmError(f"int8 {what} of method {method.name!r} need calibration on recorded calls")
    quantizer = xnnpack.XNNPACKQuantizer()
    module, kept = exported.module(), kept_weights(method)

    def wanted(node: torch.fx.Node) -> bool:
        """Whether a node is none of the layers that stay in float."""
        if node.target != torch.ops.aten.linear.default or not kept:
            return True
        weight = module.get_parameter(str(node.args[1].target))  # type: ignore[union-attr]
        return not any(weight.shape == other.shape and torch.equal(weight, other) for other in kept)

    quantizer.set_filter_function(wanted)
    for operator, dynamic in ((torch.ops.aten.linear, not static), (torch.ops.aten.conv2d, False)):
        config = xnnpack.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
        quantizer.set_operator_type(operator.default, config)
    prepared = prepare_pt2e(module, quantizer)
    for inputs in runs:
        prepared(*inputs)
    return _exported(method, convert_pt2e(prepared))


def _exported(method: Method, module: torch.nn.Module) -> ExportedProgram:
    """A module with the signature of `method`; axes with bounds stay dynamic, the others are those of the example."""
    sizes = {
        symbol: lengths.step * Dim(f"_{symbol}", min=lengths[0] // lengths.step, max=lengths[-1] // lengths.step)
        for symbol, lengths in method.bounds.items()
    }
    shapes = tuple(
        {axis: sizes[symbol] for axis, symbol in method.dynamic.get(name, {}).items() if symbol in sizes}
        for name in method.inputs
    )
    return export(module, _examples(method), dynamic_shapes=shapes, strict=False)


def _lowered(exported: dict[str, ExportedProgram]) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    # The lowered graph is checked by running it (parity), not by walking it once more.
    config = EdgeCompileConfig(_check_ir_validity=False)
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()], compile_config=config)
    return bytes(edge.to_executorch().buffer)


def _examples(method: Method) -> tuple[torch.Tensor, ...]:
    """Copies: two inputs that are one tensor would become one input, without a word."""
    return tuple(value.clone() for value in method.inputs.values())


@contextmanager
def _lean() -> Iterator[None]:
    """Lowering without what takes a third of its time and nobody looks at.

    It makes millions of small objects that live to its end: collecting among them is lost. And each of its dozens of
    passes notes for every node which line of Python made it, and copies the list of all nodes that it comes from.
    """
    enabled = gc.isenabled()
    gc.disable()
    traces, fx.do_not_emit_stack_traces = fx.do_not_emit_stack_traces, True
    NodeSource.__deepcopy__ = lambda source, memo: source  # type: ignore[attr-defined]
    try:
        yield
    finally:
        fx.do_not_emit_stack_traces = traces
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]
        if enabled:
            gc.enable()
