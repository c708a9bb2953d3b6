"""A checkpoint comes back as it went in, or says that it cannot."""

import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from todm.checkpoint import fingerprint, list_checkpoints, load_checkpoint, newest_checkpoint, save_checkpoint
from todm.errors import TodmError


def same(a, b) -> bool:
    if isinstance(a, Tensor):
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


STACK = torch.arange(12, dtype=torch.float32).view(3, 4)
STATE = {
    "views": [STACK[0], STACK[1], STACK[:, 1], STACK.t(), STACK],
    "types": (
        torch.tensor([1.5, -0.0, math.nan, math.inf, 1e-45]).bfloat16(), torch.tensor(-0.0), torch.tensor(7),
        torch.tensor([True, False]), torch.zeros(0, 3), torch.tensor([2**62], dtype=torch.int64),
        torch.tensor([math.nan, 5e-324], dtype=torch.float64), torch.tensor([255], dtype=torch.uint8),
    ),
    "plain": [None, True, 0, -1, 2**70, 0.1, 1e-310, -0.0, math.inf, math.nan, "", "ä\n\"", (), [], {}, ((1, (2,)),)],
    # As in an optimiser's state: integer keys; and names that meet when they are joined by dots.
    "keys": {0: torch.tensor(1.0), "0": torch.tensor(2.0), 1: {"a": torch.tensor(3.0)}, "1.a": torch.tensor(4.0)},
}  # fmt: skip


def test_every_kind_of_value_comes_back_bit_for_bit(tmp_path):
    path = save_checkpoint(tmp_path, 3, STATE)
    assert path.name == "update-0000003.safetensors"
    loaded = load_checkpoint(path)
    assert same(STATE, loaded)
    loaded["views"][0].fill_(9)  # what shared a storage no longer does
    assert STACK[0, 0] == 0
    assert loaded["views"][4][0, 0] == 0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.integers(0, 9).map(torch.arange),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from(["a", "b", "a.b", "a.0", "0", 0, 1]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["a", "b", "a.b"]), values))
def test_any_nested_state_comes_back(tmp_path, state):
    assert same(state, load_checkpoint(save_checkpoint(tmp_path, 0, state)))


def test_the_two_newest_stay(tmp_path):
    (tmp_path / "update-best.safetensors").write_text("not one of ours")
    (tmp_path / ".update-0000001.safetensors.123.part").write_text("what a killed process had half writ")
    for update in (1, 20, 3, 100):
        save_checkpoint(tmp_path, update, {"update": update})
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "update-0000020.safetensors", "update-0000100.safetensors",
    ]  # fmt: skip
    assert newest_checkpoint(tmp_path) == ({"update": 100}, [])
    assert (tmp_path / "update-best.safetensors").exists()
    assert len(list(tmp_path.iterdir())) == 3  # and no half of one


def test_a_damaged_newest_gives_way_to_the_one_before(tmp_path):
    for update in (1, 2):
        save_checkpoint(tmp_path, update, {"update": update, "w": torch.ones(1000)})
    newest = list_checkpoints(tmp_path)[-1]
    whole = newest.read_bytes()
    for harm in (whole[:-1], whole[:100], whole[:7], b"", b"\xff" * 500):
        newest.write_bytes(harm)
        state, (warning,) = newest_checkpoint(tmp_path)
        assert state["update"] == 1
        assert f"checkpoint {newest} is damaged" in warning


def test_when_all_are_damaged_one_line_says_so(tmp_path):
    with pytest.raises(TodmError, match=r"no checkpoint in .*; type `todm train` first"):
        newest_checkpoint(tmp_path)
    for update in (1, 2):
        path = save_checkpoint(tmp_path, update, {"w": torch.ones(100)})
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TodmError, match=r"update-0000002.safetensors is damaged .*; delete it") as error:
        newest_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("metadata", [None, {}, {"structure": "{"}, {"structure": "[]"}, {"structure": "3"},
                                      {"structure": json.dumps({"tensor": "missing"})}])  # fmt: skip
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors", metadata)
    with pytest.raises(TodmError, match=r"x\.safetensors is damaged"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_a_fingerprint_names_weights():
    weights = {"a": torch.randn(3, 2), "b": torch.tensor(4), "c": torch.tensor([True]), "d": torch.ones(2).bfloat16()}
    name = fingerprint(weights)
    assert len(name) == 12
    assert fingerprint(dict(reversed(weights.items()))) == name
    assert fingerprint({**weights, "a": weights["a"].t().contiguous().t()}) == name
    changed = weights["a"].clone()
    changed[2, 1] = torch.nextafter(changed[2, 1], torch.tensor(9.0))
    others = (
        {**weights, "a": changed},
        {**weights, "b": torch.tensor(5)},
        {k: v for k, v in weights.items() if k != "c"},
    )
    assert len({name, *map(fingerprint, others)}) == 4
