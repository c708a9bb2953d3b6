"""What some methods add to a training step: a term of the loss, and work after the optimiser's step."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from todm.dropout.weights import WeightMethod
from todm.space import ElasticStack


def _in_use(module: nn.Module) -> Iterator[nn.Module]:
    """Every module of the active subnet."""
    yield module
    for child in module if isinstance(module, ElasticStack) else module.children():
        yield from _in_use(child)


def _weight_methods(module: nn.Module) -> list[tuple[WeightMethod, nn.Parameter]]:
    if not isinstance(module, ParametrizationList):
        return []
    return [(method, module.original) for method in module if isinstance(method, WeightMethod)]  # type: ignore[misc]


def penalty(model: nn.Module) -> Tensor | None:
    """The sum of the loss terms of the methods in the active subnet, a scalar; None if none has one."""
    terms: list[Tensor] = []
    for module in {id(module): module for module in _in_use(model)}.values():
        if hasattr(type(module), "penalty"):
            terms.append(module.penalty())  # type: ignore[operator]
        for method, weight in _weight_methods(module):
            term = method.weight_penalty(weight)
            terms += [term] if term is not None else []
    return sum(terms[1:], terms[0]) if terms else None


def after_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Let every method do its work after a step of the optimiser: `after_step(lr)` of those at sites,
    `after_weight_step(weight, step)` of those on weights that the step moved."""
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    for module in model.modules():
        if hasattr(type(module), "after_step"):
            module.after_step(optimizer.param_groups[0]["lr"])  # type: ignore[operator]
        for method, weight in _weight_methods(module):
            if weight.grad is not None:
                method.after_weight_step(weight, _step_sizes(optimizer, groups[id(weight)], weight))


def _step_sizes(optimizer: torch.optim.Optimizer, group: dict, weight: nn.Parameter) -> Tensor | float:
    """The step of each weight along its (smoothed) gradient: Adam divides by the gradient's root mean square."""
    state = optimizer.state.get(weight, {})
    if not isinstance(optimizer, torch.optim.Adam) or "exp_avg_sq" not in state:
        return float(group["lr"])
    second = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    return group["lr"] / (second.sqrt() + group["eps"])


@torch.no_grad()
def nonzero(model: nn.Module) -> tuple[int, int]:
    """(weights that are not zero, all weights) in the active subnet, of the layers that a weight method acts on.

    Args:
        model: In eval mode, for in training the weights are one noisy draw.
    """
    count = total = 0
    for module in {id(module): module for module in _in_use(model)}.values():
        for method, weight in _weight_methods(module):
            part = method.in_use(method(weight))
            count, total = count + int(torch.count_nonzero(part)), total + part.numel()
    return count, total
