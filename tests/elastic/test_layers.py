"""Each layer alone: the shapes it takes, the plain layer it becomes, and what it refuses."""

import math

import pytest
import torch
from torch import nn

from todm import Choice
from todm.elastic import (
    ElasticConv1d,
    ElasticConv2d,
    ElasticEmbedding,
    ElasticGroupNorm,
    ElasticLayerNorm,
    ElasticLinear,
    ElasticRMSNorm,
    MultiheadAttention,
)


def width(active: int, options=(4, 8, 12), name="width") -> Choice:
    choice = Choice(name, options)
    choice.active = active
    return choice


W, V = width(8), width(4, name="other")

CASES = [
    (ElasticLinear(W, V), nn.Linear(8, 4), (2, 5, 8)),
    (ElasticLinear(3, 2 * W, bias=False), nn.Linear(3, 16, bias=False), (2, 3)),
    (ElasticLayerNorm(W, eps=1e-3), nn.LayerNorm(8, eps=1e-3), (2, 8)),
    (ElasticRMSNorm(W, eps=1e-3), nn.RMSNorm(8, eps=1e-3), (2, 8)),
    (ElasticGroupNorm(W, 4, eps=1e-3), nn.GroupNorm(2, 8, eps=1e-3), (2, 8, 3, 3)),
    (ElasticConv1d(W, V, 3, 2, 1, bias=False), nn.Conv1d(8, 4, 3, 2, 1, bias=False), (2, 8, 9)),
    (ElasticConv1d(W, W, 3, padding="same", depthwise=True), nn.Conv1d(8, 8, 3, padding="same", groups=8), (2, 8, 9)),
    (ElasticConv2d(W, V, (3, 1), (2, 1), (1, 0), 2), nn.Conv2d(8, 4, (3, 1), (2, 1), (1, 0), 2), (2, 8, 9, 4)),
    (ElasticConv2d(W, W, 3, depthwise=True), nn.Conv2d(8, 8, 3, groups=8), (2, 8, 5, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "torch_layer", "shape"), CASES, ids=lambda value: type(value).__name__)
def test_a_layer_is_torch_s_own_with_the_first_weights(layer, torch_layer, shape):
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.normal_()
            size = getattr(torch_layer, name).shape
            getattr(torch_layer, name).copy_(p[tuple(slice(n) for n in size)])
    x = torch.randn(shape)
    expected, plain = torch_layer(x), layer.plain()
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert torch.equal(plain(x), expected)
    assert type(plain) is type(torch_layer)
    assert repr(plain) == repr(torch_layer)  # every hyperparameter, as torch would show it
    assert {n: p.shape for n, p in plain.named_parameters()} == {n: p.shape for n, p in torch_layer.named_parameters()}


def test_embedding():
    layer, symbols = ElasticEmbedding(5, W), torch.tensor([[0, 4], [2, 2]])
    expected = layer.weight[symbols][..., :8]
    assert torch.equal(layer(symbols), expected)
    plain = layer.plain()
    assert type(plain) is nn.Embedding
    assert (plain.num_embeddings, plain.embedding_dim, plain.weight.requires_grad) == (5, 8, True)
    assert torch.equal(plain(symbols), expected)


def test_a_fixed_width_is_the_ordinary_layer():
    layer = ElasticLinear(3, 4)
    assert torch.equal(layer.plain().weight, layer.weight)
    with pytest.raises(RuntimeError):
        ElasticLinear(W, 4)(torch.zeros(2, 12))  # the full width, where 8 are active


def test_every_option_must_divide_into_groups():
    with pytest.raises(ValueError, match="12 channels cannot be split into groups of 8"):
        ElasticGroupNorm(Choice("c", (8, 12, 16)), 8)
    with pytest.raises(ValueError, match="3 channels cannot be split into groups of 2"):
        ElasticGroupNorm(3, 2)
    assert ElasticGroupNorm(Choice("c", (1, 2, 3)) * 4, 4).num_groups == 3


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_the_textbook_s_over_the_first_heads(causal):
    heads = width(2, (1, 2, 3), "heads")
    layer = MultiheadAttention(W, heads, head_size=5, causal=causal).eval()
    x = torch.randn(2, 6, 8)
    y = torch.zeros(2, 6, 8)
    for head in range(2):
        rows = slice(5 * head, 5 * head + 5)
        q, k, v = (x @ p.weight[rows, :8].T + p.bias[rows] for p in (layer.query, layer.key, layer.value))
        scores = q @ k.mT / math.sqrt(5)
        if causal:
            scores = torch.where(torch.ones(6, 6).tril() > 0, scores, -torch.inf)
        y += scores.softmax(-1) @ v @ layer.out.weight[:8, rows].T
    assert torch.allclose(layer(x), y + layer.out.bias[:8], atol=1e-6)


def test_attention_ignores_what_is_masked():
    layer, x = MultiheadAttention(8, 2, 4), torch.randn(2, 5, 8)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    out, other = layer(x, mask), layer(x + 10 * ~mask[..., None], mask)
    assert torch.allclose(out[mask], other[mask], atol=1e-5)
    assert torch.allclose(out[1, :3], layer(x[1:, :3])[0], atol=1e-5)
    assert torch.allclose(out[0], layer(x)[0], atol=1e-6)
