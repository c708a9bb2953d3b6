"""A recipe's `dropout:` block: which method acts where."""

import inspect
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from todm.dropout.around import After, Before, Inside
from todm.dropout.rates import Rate
from todm.dropout.registry import arguments_of, create, names
from todm.dropout.site import Site
from todm.dropout.weights import WeightMethod
from todm.errors import TodmError

FROM_SITE = ("width", "source_width", "shared_axis")
"""Arguments that a method takes from its site unless the block gives them."""
WIDTHS = (("width_out", "channels_out"), ("width_in", "channels_in"))
"""What elastic layers call the sizes of their weight's axes."""
AROUND = {"before": Before, "after": After, "attention": Inside}
"""Places beside a module that knows nothing of dropout."""


def install(model: nn.Module, block: Mapping[str, Mapping[str, Any]]) -> None:
    """Put dropout methods into a model, in place.

    Args:
        model: Freshly built.
        block: By place: `{method: NAME, argument: value, ...}`. A place is the name of a site (every site of that name
            gets a method of its own) or, for the module at a path, `before:PATH` for its input, `after:PATH` for its
            output, `attention:PATH` for the attention weights inside an `nn.MultiheadAttention`, `weights:PATH` for
            its weights.

    Raises:
        TodmError: an unknown place, method or argument, or a wrong value; it lists the valid ones.
    """
    sites: dict[str, list[Site]] = defaultdict(list)
    for module in model.modules():
        if isinstance(module, Site):
            sites[module.name].append(module)
    # Weights first: a layer that is wrapped has them one level down.
    for place, described in sorted(block.items(), key=lambda item: not item[0].startswith("weights:")):
        if not isinstance(described, Mapping) or "method" not in described:
            raise TodmError(f"dropout {place!r}: write {{method: NAME, ...}} with one of {', '.join(names())}")
        name, arguments = described["method"], {k: v for k, v in described.items() if k != "method"}
        kind, _, path = place.partition(":")
        try:
            if path and kind == "weights":
                _put_on_weights(_layer(model, path), name, arguments)
                continue
            if path and kind in AROUND:
                sites[place] = [_wrap(model, path, kind, place)]
            elif place not in sites:
                known = ", ".join([*sites, *(f"{kind}:PATH" for kind in (*AROUND, "weights"))])
                raise TodmError(f"the model has no such place; it has {known}")
            for index, site in enumerate(sites[place]):
                site.put(_made(name, arguments, site, index, len(sites[place])))
        except TodmError as error:
            raise TodmError(f"dropout {place!r}: {error}") from None


def _made(name: str, arguments: dict[str, Any], site: Site, index: int, count: int) -> nn.Module:
    """A method for a site, which is number `index` of `count` of its name."""
    facts = {key: getattr(site, key) for key in FROM_SITE if key in arguments_of(name)}
    method = create(name, **{key: value for key, value in facts.items() if value is not None} | arguments)
    if isinstance(method, WeightMethod):
        raise TodmError(f"{name} acts on weights: name the place weights:PATH")
    for value in vars(method).values():
        if isinstance(value, Rate):
            value.fill(layer=index, layers=count)
    return method


def _layer(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        known = ", ".join(name for name, module in model.named_modules() if name and not list(module.children()))
        raise TodmError(f"the model has no module {path!r}; its layers are {known}") from None


def _put_on_weights(layer: nn.Module, name: str, arguments: dict[str, Any]) -> None:
    """Make a method the parametrisation of a layer's weight."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, nn.Parameter):
        raise TodmError(f"{type(layer).__name__} has no weight to act on, or something acts on it already")
    widths = tuple(
        next((getattr(layer, key) for key in keys if hasattr(layer, key)), size)
        for keys, size in zip(WIDTHS, weight.shape, strict=False)
    )
    known = arguments_of(name)
    facts = {key: value for key, value in {"weight": weight, "widths": widths}.items() if key in known}
    method = create(name, **facts | arguments)
    if {"preactivation", "source"} & inspect.signature(method.forward).parameters.keys():
        raise TodmError(f"{name} acts on activations, not on weights")
    register_parametrization(layer, "weight", method)


def _wrap(model: nn.Module, path: str, kind: str, place: str) -> Site:
    """Put a site beside the module at a path."""
    parent, _, name = path.rpartition(".")
    layer = _layer(model, path)
    if kind == "attention" and not isinstance(layer, nn.MultiheadAttention):
        raise TodmError(f"{path!r} is {type(layer).__name__}, not nn.MultiheadAttention")
    wrapper = AROUND[kind](layer, Site(place))
    holder = model.get_submodule(parent)
    while name not in holder._modules:  # a wrapper answers for its layer
        holder = holder.get_submodule("layer")
    holder._modules[name] = wrapper
    return wrapper.site
