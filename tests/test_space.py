"""The space is what the model holds: nothing more, nothing twice, and every operation stays inside it."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from todm import Choice, SearchSpace, activate, extract
from todm.elastic import ElasticLinear, ElasticStack
from todm.space import Multiple, active, full


class Leaf(nn.Module):
    def __init__(self, hidden: Choice):
        super().__init__()
        self.up, self.down = ElasticLinear(4, hidden), ElasticLinear(hidden, 4)

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(x)))


class Group(nn.Module):
    """A stack inside a stack."""

    def __init__(self, name: str, keep: str, depth: int):
        super().__init__()
        leaves = [Leaf(Choice(f"{name}.hidden{i}", (2, 3))) for i in range(depth)]
        self.leaves = ElasticStack(leaves, Choice(f"{name}.depth", range(1, depth + 1)), keep)

    def forward(self, x):
        for leaf in self.leaves:
            x = leaf(x)
        return x


class Nested(nn.Module):
    """One group of 1 to 3 leaves or another of 1 to 2 after it, each leaf with its width, and a width outside."""

    def __init__(self, keep: str = "first"):
        super().__init__()
        self.groups = ElasticStack([Group("a", keep, 3), Group("b", keep, 2)], Choice("depth", (1, 2)))
        out = Choice("out", (1, 2))
        self.head, self.tail = ElasticLinear(4, out), ElasticLinear(out, 1)

    def forward(self, x):
        for group in self.groups:
            x = group(x)
        return self.tail(self.head(x))


def every(space: SearchSpace):
    for values in itertools.product(*space.choices.values()):
        yield dict(zip(space.choices, values, strict=True))


def shape_of(model, arch):
    """What makes two networks different: which of the supernet's weights they hold, and how much of them."""
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            p.fill_(number)
    return tuple((p.flatten()[0].item(), tuple(p.shape)) for p in extract(model, arch).parameters())


def test_a_choice_is_sorted_starts_full_and_ties_multiples():
    heads = Choice("heads", [4, 2, 4, 8])
    assert heads.options == (2, 4, 8)
    assert (active(heads), full(heads), active(heads * 3 * 2), full(2 * heads)) == (8, 8, 48, 16)
    heads.active = 2
    assert (int(heads), active(6 * heads), full(6 * heads), int(2 * (heads * 3))) == (2, 12, 48, 12)
    assert heads * 6 == Multiple(heads, 6)
    assert (heads * 6).options == (12, 24, 48)
    assert (active(5), full(5)) == (5, 5)


@pytest.mark.parametrize("options", [[], [0, 4], [-8], [2.5], ["8"]])
def test_a_choice_needs_positive_integers(options):
    with pytest.raises(ValueError, match="'width' needs positive integer options"):
        Choice("width", options)


@given(st.integers(8, 4096), st.lists(st.floats(0.01, 1), min_size=1, max_size=6))
def test_ratios_are_the_nearest_multiples_of_8(size, ratios):
    options = Choice.ratios("width", size, ratios).options
    assert all(option % 8 == 0 and option >= 8 for option in options)
    for ratio in ratios:
        assert any(abs(option - size * ratio) <= 4 or option == 8 for option in options)
    assert Choice.ratios("width", 96, (0.25, 0.5, 1.0)).options == (24, 48, 96)
    assert Choice.ratios("width", 10, (0.5, 1.0), multiple_of=5).options == (5, 10)


def test_the_space_is_read_off_the_model():
    space = SearchSpace.of(Nested())
    assert space.choices == {
        "depth": (1, 2),
        "a.depth": (1, 2, 3), **{f"a.hidden{i}": (2, 3) for i in range(3)},
        "b.depth": (1, 2), **{f"b.hidden{i}": (2, 3) for i in range(2)},
        "out": (1, 2),
    }  # fmt: skip
    assert space.largest() == {name: options[-1] for name, options in space.choices.items()}
    assert set(space.smallest().values()) == {1, 2}
    depths = {name: 1 for name in space.choices if name.endswith("depth")}
    young = space.young()
    assert young.largest() == {**space.largest(), **depths}
    assert young.smallest() == space.smallest()
    assert young.choices == space.choices | dict.fromkeys(depths, (1,))
    assert young.within(space.largest()) == young.largest()
    assert young.within(space.smallest()) == space.smallest()


def test_a_name_means_one_choice():
    shared = Choice("w", (2, 4))
    assert SearchSpace.of(nn.Sequential(ElasticLinear(3, shared), ElasticLinear(shared * 1, 3))).size == 2
    clash = nn.Sequential(ElasticLinear(3, Choice("w", (2, 4))), ElasticLinear(Choice("w", (2, 4)), 3))
    for read in (SearchSpace.of, lambda model: activate(model, {"w": 2})):
        with pytest.raises(ValueError, match="two different choices are named 'w'"):
            read(clash)
    with pytest.raises(ValueError, match="the model has no Choice"):
        SearchSpace.of(nn.Linear(2, 2))


@pytest.mark.parametrize("keep", ["first", "even"])
def test_canonical_and_size_against_all_distinct_networks(keep):
    model = Nested(keep)
    space = SearchSpace.of(model)
    everything = list(every(space))
    canonical = [space.canonical(arch) for arch in everything]
    distinct = {key: shape_of(model, arch) for key, arch in {str(arch): arch for arch in canonical}.items()}
    # One network, one canonical architecture; and canonical or not, it is the same network.
    assert len(set(distinct.values())) == len(distinct) == space.size == 2 * (14 + 14 * 6)
    for arch, same in random.Random(0).sample(list(zip(everything, canonical, strict=True)), 60):
        assert shape_of(model, arch) == distinct[str(same)]
        assert space.encode(arch) == space.encode(same)


def test_a_layer_used_twice_in_a_stack_is_gated_by_both_places():
    a, b, c = (Leaf(Choice(name, (2, 3))) for name in "abc")
    space = SearchSpace.of(nn.ModuleList([ElasticStack([a, b, a, c], Choice("depth", (1, 2, 3, 4)))]))
    assert space.canonical({"depth": 3, "a": 3, "b": 3, "c": 3}) == {"depth": 3, "a": 3, "b": 3, "c": 2}
    assert space.size == 2 + 4 + 4 + 8


def test_stacks_keep_the_first_layers_or_evenly_spread_ones():
    layers = [nn.Linear(1, 1) for _ in range(7)]
    first, even = (ElasticStack(layers, Choice("d", (1, 2, 3, 4, 7)), keep) for keep in ("first", "even"))
    assert [first.kept(d) for d in (1, 2, 4)] == [(0,), (0, 1), (0, 1, 2, 3)]
    assert [even.kept(d) for d in (1, 2, 3, 4)] == [(0,), (0, 6), (0, 3, 6), (0, 2, 4, 6)]
    assert first.kept(7) == even.kept(7) == tuple(range(7))
    for stack in (first, even):
        for depth in stack.depth.options:
            stack.depth.active = depth
            kept = [layers[i] for i in stack.kept(depth)]
            assert len(set(kept)) == len(stack) == depth
            # By iteration, by index and once extracted: always the same layers.
            assert list(stack) == kept == [stack[i] for i in range(len(stack))] == list(stack.plain())
            assert (stack[-1], list(stack[:2])) == (kept[-1], kept[:2])
            with pytest.raises(IndexError):
                stack[depth]
    assert len(list(first.parameters())) == 14


def test_stack_errors():
    layers = [nn.Linear(1, 1)]
    with pytest.raises(ValueError, match="'d' goes up to 2, but there are 1 layers"):
        ElasticStack(layers, Choice("d", (1, 2)))
    with pytest.raises(ValueError, match="keep must be 'first' or 'even', not 'last'"):
        ElasticStack(layers, Choice("d", (1,)), "last")


@settings(max_examples=100, deadline=None)
@given(st.integers(), st.floats(0, 1))
def test_sample_mutate_and_crossover_stay_in_the_space(seed, rate):
    space, rng = SearchSpace.of(Nested()), random.Random(seed)
    first, second = space.sample(rng), space.sample(rng)
    before = dict(first), dict(second)
    child, mutant = space.crossover(first, second, rng), space.mutate(first, rng, rate)
    for arch in (first, second, child, mutant, space.canonical(first)):
        assert space.check(arch) is arch
        assert list(arch) == list(space.choices)
    assert all(child[name] in (first[name], second[name]) for name in child)
    assert (first, second) == before
    again = random.Random(seed)
    assert [space.sample(again), space.sample(again)] == [first, second]


def test_mutation_changes_as_much_as_asked_and_sampling_is_uniform():
    space, rng = SearchSpace.of(Nested()), random.Random(0)
    arch = space.largest()
    changed = {
        rate: sum(space.mutate(arch, rng, rate)[name] != arch[name] for _ in range(400) for name in arch) / 400
        for rate in (0.0, 0.5, 1.0)
    }
    expected = sum(1 - 1 / len(options) for options in space.choices.values())
    assert changed[0.0] == pytest.approx(expected / len(arch), rel=0.15)  # one is redrawn
    assert changed[1.0] == pytest.approx(expected, rel=0.05)
    assert changed[0.0] < changed[0.5] < changed[1.0]
    drawn = [space.sample(rng)["a.depth"] for _ in range(3000)]
    assert all(drawn.count(depth) == pytest.approx(1000, rel=0.12) for depth in (1, 2, 3))
    parents = space.smallest(), space.largest()
    ones = sum(space.crossover(*parents, rng)["out"] == 1 for _ in range(1000))
    assert ones == pytest.approx(500, rel=0.15)


def test_encode_scales_to_one_and_ignores_what_is_unused():
    space = SearchSpace.of(Nested())
    assert space.encode(space.smallest()) == [0.0] * 9
    assert space.encode(space.largest()) == [1.0] * 9
    codes = dict(zip(space.choices, space.encode({**space.largest(), "depth": 1, "a.depth": 2}), strict=True))
    assert codes["a.depth"] == 0.5
    assert {name for name, code in codes.items() if code == 0} == {
        "depth", "a.hidden2", "b.depth", "b.hidden0", "b.hidden1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wdith": 1}, "unknown choice 'wdith': the model has depth, a.depth"),
        ({"out": 3}, r"'out' is 3, but must be one of \[1, 2\]"),
        ({"out": None}, r"'out' is None, but must be one of"),
    ],
)
def test_what_is_not_in_the_space_is_named(change, message):
    model = Nested()
    space = SearchSpace.of(model)
    arch = {**space.smallest(), **change}
    calls = (space.check, space.canonical, space.encode, lambda a: activate(model, a), lambda a: extract(model, a))
    for call in (*calls, lambda a: space.mutate(a, random.Random(0))):
        with pytest.raises(ValueError, match=message):
            call(arch)
    for parents in ((arch, space.smallest()), (space.smallest(), arch)):
        with pytest.raises(ValueError, match=message):
            space.crossover(*parents, random.Random(0))
    assert model.head.width_out.active == 2
    assert len(model.groups) == 2
