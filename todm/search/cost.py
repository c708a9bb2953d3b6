"""Exact costs of a subnet that need no device: parameters, their bytes, multiply-accumulates."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from todm.program import Program
from todm.search.spread import arch_key
from todm.space import Arch, SearchSpace


def cost(program: Program, subnet: nn.Module) -> dict[str, float]:
    """Count `params` and `weight_bytes` of a subnet, and the `macs` of one main call of its program.

    MACs are those of matrix products, convolutions and fused attention; the other methods count as often as
    they are called meanwhile (`Method.calls`).
    """
    macs = 0.0
    for index, method in enumerate(program.methods):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            method.module(*method.inputs.values())
        macs += counter.get_total_flops() / 2 * (method.calls if index else 1.0)
    weights = list(subnet.parameters())
    return {
        "params": sum(w.numel() for w in weights),
        "weight_bytes": sum(w.nbytes for w in weights),
        "macs": macs,
    }


class CostModel:
    """`cost` of an architecture, worked out once for each different network.

    Args:
        build: Makes the program a device would run, and the extracted subnet it was made from.
    """

    def __init__(self, space: SearchSpace, build: Callable[[Arch], tuple[Program, nn.Module]]) -> None:
        self._space, self._build = space, build
        self._known: dict[str, dict[str, float]] = {}

    def __call__(self, arch: Arch) -> dict[str, float]:
        key = arch_key(arch := self._space.canonical(arch))
        if key not in self._known:
            self._known[key] = cost(*self._build(arch))
        return dict(self._known[key])
