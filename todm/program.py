"""What is exported: named methods with explicit states. The only thing `todm.export` knows of a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Methods = Mapping[str, Callable[..., tuple[np.ndarray, ...]]]
"""A loaded program: method name -> function of NumPy arrays, by position, in the order of `Method.inputs`."""


@dataclass(frozen=True)
class Method:
    """One entry point of a program: a module with example inputs, holding real tensors only."""

    name: str
    """Name of the entry point, e.g. `encode_chunk`."""
    file: str
    """Stem of its ONNX file, e.g. `encoder`."""
    module: nn.Module
    """In eval mode; `forward(*inputs)` gives a tensor or a tuple of tensors."""
    inputs: dict[str, Tensor]
    """Example inputs by name, in call order, batch 1."""
    outputs: tuple[str, ...]
    states: dict[str, str] = field(default_factory=dict)
    """Output name -> name of the input it feeds on the next call. A state starts at zero."""
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    """Input name -> {axis: symbol}, where a runtime supports dynamic axes."""
    bounds: dict[str, range] = field(default_factory=dict)
    """Symbol -> the lengths it may have where a runtime plans its memory ahead; a symbol without is fixed there."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Written into its file, beside the program's, where the format has a place for it."""
    quantize: bool = True
    """Whether int8 and int4 apply to it."""
    keep: frozenset[str] = frozenset()
    """Names of linear layers inside `module` that these leave in float all the same."""
    calls: float = 1.0
    """Calls per call of the main method in ordinary use; 0 for one that belongs to another way of using it."""

    def signature(self) -> dict[str, Any]:
        """All of it but the module, fit for JSON."""
        inputs = [
            {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
            for name, value in self.inputs.items()
        ]
        same = {key: getattr(self, key) for key in ("name", "file", "states", "quantize", "calls")}
        return {**same, "inputs": inputs, "outputs": list(self.outputs)}


@dataclass(frozen=True)
class Program:
    """A model as a device runs it. The first method is the main one, whose calls set the pace.

    One program may be used in several ways, for example as a stream and on whole signals. A runtime that has one
    file a method gives each variant a folder of its own; one that puts all methods into one file needs none.
    """

    methods: tuple[Method, ...]
    seconds: float | None = None
    """Seconds of signal that one main call consumes; None where the model is not a stream."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Written into every file where the format has a place for it."""
    static: bool = False
    """Activations in int8 by ranges calibrated on real calls, where a runtime offers it, not by those of each call."""
    assets: dict[str, bytes] = field(default_factory=dict)
    """Further files of the bundle by name, e.g. `tokens.txt`."""
    variants: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Way of use -> names of its methods, the main one first. The first way is the default."""

    def ways(self) -> dict[str, tuple[Method, ...]]:
        """The methods of every variant; a program that names none has one, called "", of all methods."""
        by_name = {method.name: method for method in self.methods}
        variants = self.variants or {"": tuple(by_name)}
        return {variant: tuple(by_name[name] for name in names) for variant, names in variants.items()}

    def only(self, variant: str) -> "Program":
        """What one way of use needs of it."""
        return replace(self, methods=self.ways()[variant], variants={variant: self.variants[variant]})

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the states of the main method, in the order of its inputs."""
        main = self.methods[0]
        return [tuple(main.inputs[name].shape) for name in main.states.values()]

    def signature(self) -> dict[str, Any]:
        """What a client needs to call the methods: names, shapes, types and which outputs feed which inputs."""
        return {
            "seconds": self.seconds,
            "variants": {variant: [method.name for method in methods] for variant, methods in self.ways().items()},
            "methods": [method.signature() for method in self.methods],
        }


def eager(program: Program) -> Methods:
    """The PyTorch program behind the signature that every exported file has."""

    def bind(method: Method) -> Callable[..., tuple[np.ndarray, ...]]:
        def call(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            with torch.inference_mode():
                result = method.module(*map(torch.from_numpy, inputs))
            outputs = result if isinstance(result, tuple) else (result,)
            return tuple(output.numpy() for output in outputs)

        return call

    return {method.name: bind(method) for method in program.methods}
