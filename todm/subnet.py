"""Extraction: from a supernet and an architecture to a standalone network."""

import copy

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from todm.space import Arch, Choice, Multiple, activate, active


def extract(model: nn.Module, arch: Arch) -> nn.Module:
    """Copy the subnetwork `arch` out of a supernet.

    The result holds ordinary torch layers with copies of the slices it uses and computes, in eval mode, exactly
    what the supernet computes with `arch` active. The supernet is left as it was.

    Args:
        model: A supernet. A module with a method `plain() -> nn.Module` is replaced by what that returns; a
            parametrised weight becomes an ordinary one with its value in eval mode.
        arch: One of `SearchSpace.of(model)`.

    Raises:
        ValueError: `arch` does not belong to the model's space.
    """
    subnet = copy.deepcopy(model)
    activate(subnet, arch)
    subnet = _plain(subnet, {})
    for module in subnet.modules():
        for name, value in vars(module).items():
            if isinstance(value, Choice | Multiple):
                setattr(module, name, active(value))
    return subnet


def _plain(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """Replace elastic modules from the leaves up; a module used in two places stays one module."""
    if module not in done:
        for name, child in list(module._modules.items()):
            if child is not None:
                module._modules[name] = _plain(child, done)
        if is_parametrized(module):
            _settle(module)
        done[module] = module.plain().train(module.training) if hasattr(module, "plain") else module  # type: ignore[operator]
    return done[module]


def _settle(module: nn.Module) -> None:
    """Make the parametrised tensors of a copied module parameters again, with their values in eval mode.

    `remove_parametrizations` of torch would take them from the class too, which the copy shares with its original.
    """
    parametrized = module.get_submodule("parametrizations").eval()
    values = {name: getattr(module, name).detach().clone() for name, _ in parametrized.named_children()}
    del module._modules["parametrizations"]
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        setattr(module, name, nn.Parameter(value))
