"""Widths that can be chosen, and the search space that is read off a model built from them."""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

Arch = dict[str, int]
"""One architecture: the value of every choice by name, e.g. `{"depth": 4, "hidden": 64}`. JSON as it stands."""


class Choice:
    """A named set of sizes, shared by every layer that must agree on it.

    Args:
        name: Its name in an architecture; unique within a model.
        options: The sizes it may take, positive, in any order.

    Raises:
        ValueError: no options, or one that is not a positive integer.
    """

    def __init__(self, name: str, options: Sequence[int]) -> None:
        if not options or any(not isinstance(option, int) or option < 1 for option in options):
            raise ValueError(f"choice {name!r} needs positive integer options, got {list(options)}")
        self.name = name
        self.options = tuple(sorted(set(options)))
        self.active = self.full

    @classmethod
    def ratios(cls, name: str, full: int, ratios: Sequence[float], multiple_of: int = 8) -> "Choice":
        """Options that are fractions of `full`, rounded to what hardware likes (multiples of 8)."""
        return cls(name, [max(1, round(full * ratio / multiple_of)) * multiple_of for ratio in ratios])

    @property
    def full(self) -> int:
        """The largest size, which the shared weights are stored in."""
        return self.options[-1]

    def __int__(self) -> int:
        return self.active

    def __mul__(self, factor: int) -> "Multiple":
        return Multiple(self, factor)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"Choice({self.name!r}, {list(self.options)}, active={self.active})"


@dataclass(frozen=True)
class Multiple:
    """A width tied to a choice by a constant factor, e.g. channels = heads * channels per head."""

    choice: Choice
    factor: int

    @property
    def options(self) -> tuple[int, ...]:
        return tuple(option * self.factor for option in self.choice.options)

    @property
    def active(self) -> int:
        return self.choice.active * self.factor

    @property
    def full(self) -> int:
        return self.choice.full * self.factor

    def __int__(self) -> int:
        return self.active

    def __mul__(self, factor: int) -> "Multiple":
        return Multiple(self.choice, self.factor * factor)

    __rmul__ = __mul__


Width = int | Choice | Multiple
"""A size that is fixed, chosen, or tied to a choice."""


def active(width: Width) -> int:
    """The size in use now."""
    return int(width)


def full(width: Width) -> int:
    """The largest size, which the shared weights are stored in."""
    return width if isinstance(width, int) else width.full


class ElasticStack(nn.ModuleList):
    """Layers of which an architecture uses some: length, indices and iteration are those of the active ones.

    Args:
        layers: All layers, in order.
        depth: How many are used.
        keep: `first` takes the first ones, `even` spreads the used ones evenly, first and last included
            (for every `depth` above one).

    Raises:
        ValueError: a depth option exceeds the number of layers.
    """

    def __init__(self, layers: Sequence[nn.Module], depth: Choice, keep: str = "first") -> None:
        super().__init__(layers)
        if depth.full > len(layers):
            raise ValueError(f"choice {depth.name!r} goes up to {depth.full}, but there are {len(layers)} layers")
        if keep not in ("first", "even"):
            raise ValueError(f"keep must be 'first' or 'even', not {keep!r}")
        self.depth = depth
        self.keep = keep

    def kept(self, depth: int) -> tuple[int, ...]:
        """Indices of the layers in use at a depth."""
        count = len(self._modules)
        if self.keep == "first" or depth == 1:
            return tuple(range(depth))
        return tuple(round(i * (count - 1) / (depth - 1)) for i in range(depth))

    def __iter__(self) -> Iterator[nn.Module]:
        layers = list(self._modules.values())
        return iter([layers[i] for i in self.kept(self.depth.active)])  # type: ignore[misc]

    def __len__(self) -> int:
        # nn.ModuleList appends at index len(self), before `depth` exists.
        return self.depth.active if "depth" in self.__dict__ else len(self._modules)

    def __getitem__(self, index: int | slice) -> nn.Module:  # type: ignore[override]
        layers = list(self)
        return nn.ModuleList(layers[index]) if isinstance(index, slice) else layers[index]

    def plain(self) -> nn.ModuleList:
        """The active layers alone."""
        return nn.ModuleList(list(self))


@dataclass(frozen=True)
class _Gate:
    """A condition under which a module is in use: the layer's index is kept at the active depth."""

    depth: str
    index: int
    kept: Mapping[int, tuple[int, ...]]

    def open(self, arch: Arch) -> bool:
        return self.index in self.kept[arch[self.depth]]


def _own_choices(module: nn.Module) -> list[Choice]:
    found = []
    for value in vars(module).values():
        if isinstance(value, Choice):
            found.append(value)
        elif isinstance(value, Multiple):
            found.append(value.choice)
    return found


def _choices(model: nn.Module) -> dict[str, Choice]:
    found: dict[str, Choice] = {}
    for module in model.modules():
        for choice in _own_choices(module):
            if found.setdefault(choice.name, choice) is not choice:
                raise ValueError(f"two different choices are named {choice.name!r}: share one Choice or rename one")
    return found


def _uses(module: nn.Module, gates: tuple[_Gate, ...] = ()) -> Iterator[tuple[str, tuple[_Gate, ...]]]:
    """Every place where a choice is used, with the gates that must be open for it to matter."""
    for choice in _own_choices(module):
        yield choice.name, gates
    # Not children(): a layer that stands at two places of a stack must keep both indices.
    for index, child in enumerate(module._modules.values()):
        if child is None:
            continue
        if isinstance(module, ElasticStack):
            kept = {depth: module.kept(depth) for depth in module.depth.options}
            yield from _uses(child, (*gates, _Gate(module.depth.name, index, kept)))
        else:
            yield from _uses(child, gates)


class SearchSpace:
    """All architectures of a supernet. Made by `SearchSpace.of(model)`, never written down a second time."""

    def __init__(self, choices: dict[str, tuple[int, ...]], uses: dict[str, list[tuple[_Gate, ...]]]) -> None:
        self.choices = choices
        self._uses = uses

    @classmethod
    def of(cls, model: nn.Module) -> "SearchSpace":
        """Read the space off the choices that a model's layers hold.

        Raises:
            ValueError: the model has none, or two different ones share a name.
        """
        choices = {name: choice.options for name, choice in _choices(model).items()}
        if not choices:
            raise ValueError("the model has no Choice: give some layer a Choice as its width or depth")
        uses: dict[str, list[tuple[_Gate, ...]]] = {name: [] for name in choices}
        for name, gates in _uses(model):
            uses[name].append(gates)
        return cls(choices, uses)

    def smallest(self) -> Arch:
        """Every choice at its least."""
        return {name: options[0] for name, options in self.choices.items()}

    def largest(self) -> Arch:
        """Every choice at its most: the supernet itself."""
        return {name: options[-1] for name, options in self.choices.items()}

    def young(self) -> "SearchSpace":
        """The architectures of the least depth."""
        depths = {gate.depth for uses in self._uses.values() for gates in uses for gate in gates}
        choices = {name: options[:1] if name in depths else options for name, options in self.choices.items()}
        return SearchSpace(choices, self._uses)

    def within(self, arch: Arch) -> Arch:
        """`arch` with whatever is larger than this space has at the largest it has."""
        return {name: min(arch[name], options[-1]) for name, options in self.choices.items()}

    def named(self, arch: str | Arch) -> Arch:
        """The architecture `largest`, `smallest`, or one given whole.

        Raises:
            ValueError: it is none of these, or does not belong to the space.
        """
        if isinstance(arch, str):
            ends = {"largest": self.largest, "smallest": self.smallest}
            if arch not in ends:
                raise ValueError(f"unknown architecture {arch!r}: give largest, smallest, or the value of every choice")
            return ends[arch]()
        return self.check(arch)

    def sample(self, rng: random.Random) -> Arch:
        """Every choice drawn independently and uniformly."""
        return {name: rng.choice(options) for name, options in self.choices.items()}

    def mutate(self, arch: Arch, rng: random.Random, rate: float = 0.2) -> Arch:
        """Redraw each choice with probability `rate`, at least one of them."""
        self.check(arch)
        forced = rng.choice(list(self.choices))
        return {
            name: rng.choice(options) if name == forced or rng.random() < rate else arch[name]
            for name, options in self.choices.items()
        }

    def crossover(self, first: Arch, second: Arch, rng: random.Random) -> Arch:
        """Each choice from one of two parents."""
        self.check(first)
        self.check(second)
        return {name: rng.choice((first[name], second[name])) for name in self.choices}

    def check(self, arch: Arch) -> Arch:
        """Return `arch` if it belongs to the space.

        Raises:
            ValueError: a choice is missing, unknown, or has a value that is not an option.
        """
        for name in arch.keys() - self.choices.keys():
            raise ValueError(f"unknown choice {name!r}: the model has {', '.join(self.choices)}")
        for name, options in self.choices.items():
            if arch.get(name) not in options:
                raise ValueError(f"choice {name!r} is {arch.get(name)}, but must be one of {list(options)}")
        return arch

    def _matters(self, name: str, arch: Arch) -> bool:
        return any(all(gate.open(arch) for gate in gates) for gates in self._uses[name])

    def canonical(self, arch: Arch) -> Arch:
        """The same network with every choice that only unused layers hold set to its least."""
        self.check(arch)
        return {name: arch[name] if self._matters(name, arch) else options[0] for name, options in self.choices.items()}

    @property
    def size(self) -> int:
        """Number of different networks: architectures that differ in unused layers only count once."""
        gates = sorted({gate.depth for uses in self._uses.values() for gates in uses for gate in gates})
        total = 0
        for values in itertools.product(*(self.choices[name] for name in gates)):
            arch = self.smallest() | dict(zip(gates, values, strict=True))
            if self.canonical(arch) == arch:
                free = [name for name in self.choices if name not in gates and self._matters(name, arch)]
                total += math.prod(len(self.choices[name]) for name in free)
        return total

    def encode(self, arch: Arch) -> list[float]:
        """Features for a predictor: each choice of the canonical architecture scaled to 0..1."""
        canonical = self.canonical(arch)
        return [
            (canonical[name] - options[0]) / max(options[-1] - options[0], 1) for name, options in self.choices.items()
        ]


def activate(model: nn.Module, arch: Arch) -> None:
    """Make `model` compute as the architecture `arch`: sets every choice its layers share.

    Raises:
        ValueError: `arch` does not belong to the model's space; nothing is changed then.
    """
    choices = _choices(model)
    SearchSpace({name: choice.options for name, choice in choices.items()}, {}).check(arch)
    for name, choice in choices.items():
        choice.active = arch[name]


def active_arch(model: nn.Module) -> Arch:
    """The architecture that `model` computes as now."""
    return {name: choice.active for name, choice in _choices(model).items()}
