"""The collection by name. A new method is one file and one line here, or a call of `register` from anywhere."""

import inspect
from typing import Any

from torch import nn

from todm.dropout.adaptive_width import AdaptiveDropout
from todm.dropout.block import DropBlock
from todm.dropout.branches import DropPath, LayerDrop
from todm.dropout.concrete import ConcreteDropout
from todm.dropout.curriculum import AntiCurriculumDropout, CurriculumDropout, SwitchDropout
from todm.dropout.duality import methods as duality
from todm.dropout.dynamic import DynamicDropout
from todm.dropout.early_late import EarlyDropout, LateDropout
from todm.dropout.gaussian import GaussianDropout
from todm.dropout.hard_concrete import HardConcreteL0
from todm.dropout.mixture import AnnealedMixture, LearntMixture
from todm.dropout.nested import NestedDropout
from todm.dropout.sparse_variational import SparseVariational
from todm.dropout.spatial import SpatialDropout
from todm.dropout.standard import StandardDropout
from todm.dropout.standout import BiasStandout, LearntStandout, TiedStandout
from todm.errors import TodmError

_METHODS: dict[str, type[nn.Module]] = {
    "adaptive_bernoulli": duality.AdaptiveBernoulli,
    "adaptive_gaussian": duality.AdaptiveGaussian,
    "adaptive_prox": duality.AdaptiveProx,
    "adaptive_tikhonov": duality.AdaptiveTikhonov,
    "adaptive_width": AdaptiveDropout,
    "annealed_mixture": AnnealedMixture,
    "anti_curriculum": AntiCurriculumDropout,
    "concrete": ConcreteDropout,
    "curriculum": CurriculumDropout,
    "direct_penalty": duality.DirectPenalty,
    "drop_block": DropBlock,
    "drop_path": DropPath,
    "dynamic": DynamicDropout,
    "early": EarlyDropout,
    "eta_trick": duality.EtaTrick,
    "gaussian": GaussianDropout,
    "hard_concrete": HardConcreteL0,
    "late": LateDropout,
    "layer_drop": LayerDrop,
    "learnt_mixture": LearntMixture,
    "nested": NestedDropout,
    "sparse_variational": SparseVariational,
    "spatial": SpatialDropout,
    "standard": StandardDropout,
    "standout": TiedStandout,
    "standout_bias": BiasStandout,
    "standout_learnt": LearntStandout,
    "switch": SwitchDropout,
}


def names() -> list[str]:
    """Every method that `create` and a recipe know, in alphabetical order."""
    return sorted(_METHODS)


def register(name: str, method: type[nn.Module]) -> None:
    """Add a method under a name.

    Args:
        name: What recipes call it.
        method: A module class. Its constructor's arguments are the method's; `width`, `source_width` and `shared_axis`
            are filled in from the site. `forward(x)` may also name `preactivation` and `source`. Values that change
            while training are kept as `todm.dropout.rates.Rate` attributes.

    Raises:
        TodmError: the name is taken.
    """
    if _METHODS.setdefault(name, method) is not method:
        raise TodmError(f"a dropout named {name!r} exists already; choose another name")


def arguments_of(name: str) -> list[str]:
    """Names of a method's arguments.

    Raises:
        TodmError: there is no such method.
    """
    if name not in _METHODS:
        raise TodmError(f"unknown dropout {name!r}; there are {', '.join(names())}")
    return list(inspect.signature(_METHODS[name]).parameters)


def create(name: str, **arguments: Any) -> nn.Module:
    """Build a method.

    Args:
        name: One of `names()`.
        arguments: Those that the method declares; a `rate` is a number, a schedule, or a recipe's description of one.

    Raises:
        TodmError: the name, an argument or a value is wrong; it lists the valid ones.
    """
    known = arguments_of(name)
    for argument in arguments:
        if argument not in known:
            raise TodmError(f"dropout {name!r} has no argument {argument!r}; it has {', '.join(known)}")
    try:
        return _METHODS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise TodmError(f"dropout {name!r}: {error}; its arguments are {', '.join(known)}") from None
