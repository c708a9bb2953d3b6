"""Which linear layers int8 leaves in float, found from what each costs until the error rate holds; int8 embeddings."""

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from todm.export.calibrate import Call
from todm.export.parity import compare
from todm.int8 import SimulatedInt8
from todm.program import Method, Methods, Program, eager

SAMPLE = 40
"""Recorded calls of a method that a layer's cost is measured on."""


def layers(program: Program) -> dict[str, nn.Linear]:
    """Linear layers of the methods that int8 applies to, each once, by method and name in its module."""
    found: dict[str, nn.Linear] = {}
    for method in program.methods:
        for name, module in method.module.named_modules() if method.quantize else ():
            if isinstance(module, nn.Linear) and all(module is not other for other in found.values()):
                found[f"{method.name}.{name}"] = module
    return found


def costs(program: Program, calls: Sequence[Call]) -> dict[str, float]:
    """How far int8 in one layer alone moves the outputs, relative to the largest value of each: the worst first."""
    reference, taken = eager(program), []
    for method in program.methods:
        taken += [call for call in calls if call[0] == method.name][:SAMPLE]
    found = {}
    for name, layer in layers(program).items():
        rows = compare(program, reference, _simulated(reference, layer.weight), taken)
        found[name] = max((float(row["max_rel"]) for row in rows), default=0.0)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _simulated(methods: Methods, weight: Tensor) -> Methods:
    def bind(call: Callable[..., tuple[np.ndarray, ...]]) -> Callable[..., tuple[np.ndarray, ...]]:
        def in_int8(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            with SimulatedInt8([weight]):
                return call(*inputs)

        return in_int8

    return {name: bind(call) for name, call in methods.items()}


def keeping(program: Program, names: Collection[str]) -> Program:
    """The program with these layers, as `layers` names them, left in float wherever they stand."""
    chosen = [layer for name, layer in layers(program).items() if name in names]

    def kept(method: Method) -> Method:
        mine = [name for name, module in method.module.named_modules() if any(module is layer for layer in chosen)]
        return replace(method, keep=frozenset(mine))

    return replace(program, methods=tuple(map(kept, program.methods)))


def kept_weights(method: Method) -> list[Tensor]:
    """Weights of a method that int8 leaves in float."""
    return [method.module.get_submodule(name).weight for name in sorted(method.keep)]  # type: ignore[misc]


class Int8Embedding(nn.Module):
    """An embedding in int8, one scale a row: for runtimes whose quantisers leave tables in float."""

    table: Tensor
    scale: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        weight = embedding.weight.detach()
        self.register_buffer("scale", weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127)
        self.register_buffer("table", (weight / self.scale).round().to(torch.int8))

    def forward(self, index: Tensor) -> Tensor:
        """As the embedding, to half a scale."""
        return F.embedding(index, self.table).to(self.scale.dtype) * F.embedding(index, self.scale)


def with_int8_embeddings(module: nn.Module) -> nn.Module:
    """A copy in which every embedding is in int8; the module itself where it has none."""
    names = [name for name, child in module.named_modules() if isinstance(child, nn.Embedding)]
    if not names:
        return module
    changed = copy.deepcopy(module)
    for name in names:
        changed.set_submodule(name, Int8Embedding(changed.get_submodule(name)))  # type: ignore[arg-type]
    return changed
