import random

import pytest
import torch
from small_net import Net, counted, program_of
from torch import nn

from todm import extract
from todm.program import Method, Program
from todm.search.cost import CostModel, cost
from todm.space import SearchSpace


def _method(module: nn.Module, *shape: int, calls: float = 1.0) -> Method:
    return Method("m", "m", module.eval(), {"x": torch.zeros(*shape)}, ("y",), calls=calls)


@pytest.mark.parametrize(
    ("module", "shape", "macs"),
    [
        (nn.Linear(7, 11), (3, 5, 7), 3 * 5 * 7 * 11),
        (nn.Conv1d(6, 8, 3, padding=1), (1, 6, 20), 20 * 6 * 8 * 3),
        (nn.Conv1d(6, 8, 3, stride=2, groups=2), (1, 6, 21), 10 * 3 * 8 * 3),
        (nn.Conv1d(6, 6, 5, groups=6), (1, 6, 20), 16 * 6 * 5),
        (nn.Conv2d(2, 4, (3, 5)), (1, 2, 10, 10), 8 * 6 * 2 * 4 * 3 * 5),
        (nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.LayerNorm(9), nn.Linear(9, 2)), (1, 4), 4 * 9 + 9 * 2),
    ],
)
def test_macs_in_closed_form(module: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert cost(Program((_method(module, *shape),)), module)["macs"] == macs


def test_other_methods_count_as_often_as_they_are_called() -> None:
    main, other = nn.Linear(7, 11), nn.Linear(11, 13, bias=False)
    whole = nn.ModuleList([main, other])
    # The main method sets the pace, whatever its own `calls`.
    program = Program((_method(main, 1, 7, calls=5.0), _method(other, 1, 11, calls=2.5)))
    params = 7 * 11 + 11 + 11 * 13
    expected = {"params": params, "weight_bytes": 4 * params, "macs": 7 * 11 + 2.5 * 11 * 13}
    assert cost(program, whole) == expected


def test_shared_weights_count_once_and_in_their_own_type() -> None:
    layer = nn.Linear(4, 4, bias=False).half()
    tied = nn.ModuleList([layer, layer])
    assert cost(Program((_method(nn.Identity(), 1, 4),)), tied) == {
        "params": 16,
        "weight_bytes": 32,
        "macs": 0.0,
    }


def test_extracted_subnets_cost_what_they_should(net: Net, space: SearchSpace) -> None:
    rng = random.Random(0)
    for arch in [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(10))]:
        subnet = extract(net, arch)
        measured = cost(program_of(subnet), subnet)
        assert measured == {**counted(arch), "weight_bytes": 4 * counted(arch)["params"]}


def test_model_builds_each_network_once(net: Net, space: SearchSpace) -> None:
    built = []

    def build(arch: dict[str, int]) -> tuple[Program, nn.Module]:
        built.append(arch)
        subnet = extract(net, arch)
        return program_of(subnet), subnet

    model = CostModel(space, build)
    shallow = space.smallest()
    first = model(shallow)
    first["params"] = -1
    # Widths of layers that are not used make no difference.
    assert model({**shallow, "hidden3": 32})["params"] == counted(shallow)["params"]
    assert model({**shallow, "hidden0": 32})["params"] == counted({**shallow, "hidden0": 32})["params"]
    assert len(built) == 2
