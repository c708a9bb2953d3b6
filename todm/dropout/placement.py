"""A recipe's `dropout:` block: which method acts where."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import nn

from todm.dropout.around import After, Before, Inside
from todm.dropout.rates import Rate
from todm.dropout.registry import arguments_of, create, names
from todm.dropout.site import Site
from todm.errors import TodmError

FROM_SITE = ("width", "source_width", "shared_axis")
"""Arguments that a method takes from its site unless the block gives them."""
AROUND = {"before": Before, "after": After, "attention": Inside}
"""Places beside a module that knows nothing of dropout."""


def install(model: nn.Module, block: Mapping[str, Mapping[str, Any]]) -> None:
    """Put dropout methods into a model, in place.

    Args:
        model: Freshly built.
        block: By place: `{method: NAME, argument: value, ...}`. A place is the name of a site (every site of that name
            gets a method of its own) or, for the module at a path, `before:PATH` for its input, `after:PATH` for its
            output, `attention:PATH` for the attention weights inside an `nn.MultiheadAttention`.

    Raises:
        TodmError: an unknown place, method or argument, or a wrong value; it lists the valid ones.
    """
    sites: dict[str, list[Site]] = defaultdict(list)
    for module in model.modules():
        if isinstance(module, Site):
            sites[module.name].append(module)
    for place, described in block.items():
        if not isinstance(described, Mapping) or "method" not in described:
            raise TodmError(f"dropout {place!r}: write {{method: NAME, ...}} with one of {', '.join(names())}")
        name, arguments = described["method"], {k: v for k, v in described.items() if k != "method"}
        kind, _, path = place.partition(":")
        try:
            if path and kind in AROUND:
                sites[place] = [_wrap(model, path, kind, place)]
            elif place not in sites:
                known = ", ".join([*sites, *(f"{kind}:PATH" for kind in AROUND)])
                raise TodmError(f"the model has no such place; it has {known}")
            for index, site in enumerate(sites[place]):
                site.put(_made(name, arguments, site, index, len(sites[place])))
        except TodmError as error:
            raise TodmError(f"dropout {place!r}: {error}") from None


def _made(name: str, arguments: dict[str, Any], site: Site, index: int, count: int) -> nn.Module:
    """A method for a site, which is number `index` of `count` of its name."""
    facts = {key: getattr(site, key) for key in FROM_SITE if key in arguments_of(name)}
    method = create(name, **{key: value for key, value in facts.items() if value is not None} | arguments)
    for value in vars(method).values():
        if isinstance(value, Rate):
            value.fill(layer=index, layers=count)
    return method


def _wrap(model: nn.Module, path: str, kind: str, place: str) -> Site:
    """Put a site beside the module at a path."""
    parent, _, name = path.rpartition(".")
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        known = ", ".join(name for name, module in model.named_modules() if name and not list(module.children()))
        raise TodmError(f"the model has no module {path!r}; its layers are {known}") from None
    if kind == "attention" and not isinstance(layer, nn.MultiheadAttention):
        raise TodmError(f"{path!r} is {type(layer).__name__}, not nn.MultiheadAttention")
    wrapper = AROUND[kind](layer, Site(place))
    model.get_submodule(parent)._modules[name] = wrapper
    return wrapper.site
