"""Simulated int8: the numbers that eight bits can hold, in the layers that are meant."""

import pytest
import torch
from torch import nn

from todm import Choice, activate
from todm.elastic import ElasticLinear
from todm.int8 import SimulatedInt8, rounded, rounded_rows


def test_weights_have_255_levels_a_row_and_activations_256():
    torch.manual_seed(0)
    weight, x = torch.randn(3, 5000), 3 + torch.randn(2, 5000)
    scale = weight.abs().amax(1, keepdim=True) / 127
    assert torch.equal((rounded(weight) / scale).round().abs().amax(1), torch.full((3,), 127.0))
    assert (rounded(weight) - weight).abs().max() <= 0.5001 * scale.max()
    assert max(len(row.unique()) for row in rounded(weight)) <= 255
    assert max(len(row.unique()) for row in rounded_rows(x)) <= 256
    step = (x.amax(1) - x.amin(1).clamp_max(0)) / 255
    assert ((rounded_rows(x) - x).abs().amax(1) <= 1.001 * step).all()
    assert rounded_rows(torch.tensor([[0.0, 1.0]])).tolist() == [[0.0, 1.0]]  # zero is exact
    assert torch.equal(rounded_rows(torch.zeros(2, 3)), torch.zeros(2, 3))


@torch.no_grad()
def test_only_the_layers_meant_are_int8_in_plain_and_in_elastic_nets():
    torch.manual_seed(0)
    first, second, x = nn.Linear(8, 8), nn.Linear(8, 4), torch.randn(5, 8)
    exact = second(first(x))
    with SimulatedInt8([second.weight]):
        one = second(first(x))
    assert torch.equal(one, nn.functional.linear(rounded_rows(first(x)), rounded(second.weight), second.bias))
    with SimulatedInt8():
        both = second(first(x))
    assert 0 < (one - exact).abs().max() < 0.05
    assert not torch.equal(both, one)
    assert torch.equal(second(first(x)), exact)
    width = Choice("width", [4, 8])
    elastic = ElasticLinear(width, 4)
    activate(elastic, {"width": 4})
    with SimulatedInt8():
        assert torch.equal(
            elastic(x[:, :4]),
            nn.functional.linear(rounded_rows(x[:, :4]), rounded(elastic.weight[:, :4]), elastic.bias),
        )


def test_it_agrees_with_what_xnnpack_and_pytorch_call_dynamic_int8():
    """torch's own dynamic quantisation, an independent implementation (its activations share one scale a tensor)."""
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 32), torch.randn(1, 64)
    reference = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear}, dtype=torch.qint8)
    with torch.no_grad(), SimulatedInt8():
        ours = layer(x)
    assert (ours - reference(x)).abs().max() < 0.03
    assert ours.detach() == pytest.approx(layer(x).detach(), abs=0.05)
