"""What some methods add to a training step: a term of the loss, and work after the optimiser's step."""

from collections.abc import Iterator

from torch import Tensor, nn

from todm.space import ElasticStack


def _in_use(module: nn.Module) -> Iterator[nn.Module]:
    """Every module of the active subnet, each once."""
    yield module
    for child in module if isinstance(module, ElasticStack) else module.children():
        yield from _in_use(child)


def penalty(model: nn.Module) -> Tensor | None:
    """The sum of the loss terms of the methods in the active subnet, a scalar; None if none has one."""
    methods = {id(module): module for module in _in_use(model) if hasattr(type(module), "penalty")}
    terms = [module.penalty() for module in methods.values()]  # type: ignore[operator]
    return sum(terms[1:], terms[0]) if terms else None


def after_step(model: nn.Module, lr: float) -> None:
    """Let every method do its work after an optimiser step.

    Args:
        lr: The learning rate of that step.
    """
    for module in model.modules():
        if hasattr(type(module), "after_step"):
            module.after_step(lr)  # type: ignore[operator]
