"""What int8 does to a model, simulated in PyTorch: for search, which cannot export every candidate, and to find out
which layer costs how much.

Linear layers as the runtimes run them ("dynamic" int8): weights rounded once, symmetric, one scale for each output
channel; activations rounded at each call by their own range, one scale for each row (Jacob et al. 2018, section 2.1).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def rounded(weight: Tensor) -> Tensor:
    """Weights (out, in) as their int8 values stand for them."""
    scale = weight.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
    return (weight / scale).round().clamp(-127, 127) * scale


def rounded_rows(x: Tensor) -> Tensor:
    """Activations (..., features) on 256 levels between the least and the largest of each row, zero among them."""
    low, high = x.amin(-1, keepdim=True).clamp_max(0), x.amax(-1, keepdim=True).clamp_min(0)
    scale = (high - low).clamp_min(1e-12) / 255
    zero = (-low / scale).round()
    return ((x / scale).round() + zero).clamp(0, 255).sub(zero) * scale


class SimulatedInt8(TorchFunctionMode):
    """A context in which every linear map is computed as int8 would, in elastic and in plain layers.

    Args:
        only: Weights of the layers that are int8; by default all are. Views of a weight do not count as it.
    """

    def __init__(self, only: Collection[Tensor] | None = None) -> None:
        super().__init__()
        self._only = None if only is None else {id(weight) for weight in only}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.linear and (self._only is None or id(args[1]) in self._only):
            x, weight, *bias = args
            with torch.no_grad():
                return func(rounded_rows(x), rounded(weight), *bias, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
