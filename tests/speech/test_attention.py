"""Streaming attention: its definition, frame by frame, and the same from a bounded cache."""

import random

import pytest
import torch

from todm import Choice, SearchSpace, activate, extract
from todm.elastic import ElasticLinear
from todm.recipe import build
from todm.speech.attention import WindowAttention
from todm.speech.encoder import Encoder, EncoderConfig
from todm.speech.streaming import ChunkAttention, StreamingEncoder

HYBRID = EncoderConfig(
    width=[16, 24], depth=[1, 2, 4], hidden=[8, 24], heads=[2, 4], head_size=4, states=[3], front=12,
    attention_every=2, attention_heads=[1, 2, 3], attention_head_size=4, attention_left=7,
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(HYBRID, 10).eval()
    with torch.no_grad():
        for name, p in encoder.named_parameters():
            if "norm" in name or name.endswith("bias"):
                p.add_(0.5 * torch.randn_like(p))
            if name.endswith(("mixer.out.weight", "down.weight")):
                p.mul_(5)  # undo the small start, so that the branches count
    return encoder


def archs(encoder: Encoder, n: int):
    space, rng = SearchSpace.of(encoder), random.Random(0)
    return [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(n))]


@torch.no_grad()
def test_it_is_its_definition_frame_by_frame():
    torch.manual_seed(0)
    layer, x = WindowAttention(6, 2, 4, left=3).eval(), torch.randn(1, 9, 6)
    layer.bias.copy_(torch.randn(2, 4))
    out = layer(x)
    query, key, value = (project(x)[0].view(9, 2, 4) for project in (layer.query, layer.key, layer.value))
    for t in range(9):
        mixed = []
        for h in range(2):
            past = range(max(0, t - 3), t + 1)
            scores = torch.stack([query[t, h] @ key[s, h] / 2 + layer.bias[h, t - s] for s in past])
            mixed.append((scores.softmax(0)[:, None] * value[list(past), h]).sum(0))
        assert torch.allclose(out[0, t], layer.out(torch.cat(mixed)), atol=1e-5)


def test_every_other_block_attends_and_its_heads_are_an_axis(encoder):
    kinds = [type(block.mixer).__name__ for block in encoder.blocks]
    assert kinds == ["MultiHeadSSM", "WindowAttention"] * 2
    assert SearchSpace.of(encoder).choices["attention_heads"] == (1, 2, 3)
    plain = Encoder(EncoderConfig(depth=[2], hidden=[8], attention_heads=[1, 2]), 4)
    assert list(SearchSpace.of(plain).choices) == ["depth"]
    with pytest.raises(Exception, match="attention_left"):
        build(EncoderConfig, {"attention_left": 0}, "recipe.yaml")


@torch.no_grad()
def test_activate_equals_extract(encoder):
    x, outputs = torch.randn(2, 40, 80), {}
    for arch in archs(encoder, 20):
        activate(encoder, arch)
        outputs[str(SearchSpace.of(encoder).canonical(arch))] = y = encoder(x)
        activate(encoder, SearchSpace.of(encoder).largest())
        subnet = extract(encoder, arch)
        assert (subnet(x) - y).abs().max() <= 1e-5
        assert not any(isinstance(value, Choice) for m in subnet.modules() for value in vars(m).values())
        assert not any(isinstance(module, ElasticLinear) for module in subnet.modules())
    values = list(outputs.values())
    assert min((a - b).abs().max() for i, a in enumerate(values) for b in values[:i]) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("frames", "chunks"), [(4, 20), (16, 5), (32, 3), (64, 2)])
def test_streaming_equals_whole_from_a_bounded_cache(encoder, frames, chunks):
    """Chunks shorter and longer than the 7 vectors that the cache holds, streams longer than it."""
    x = torch.randn(3, frames * chunks, 80)
    for arch in archs(encoder, 4):
        subnet = extract(encoder, arch)
        streaming = StreamingEncoder(subnet, frames).eval()
        attending = [mixer for mixer in streaming.mixers if isinstance(mixer, ChunkAttention)]
        assert len(attending) == arch["depth"] // 2
        assert all(mixer.state_size == 7 * (2 * arch["attention_heads"] * 4 + 1) for mixer in attending)
        states, outputs = [torch.zeros(1, 3, size) for size in streaming.state_sizes], []
        for chunk in x.split(frames, dim=1):
            y, *states = streaming(chunk, *states)
            outputs.append(y)
        assert (torch.cat(outputs, 1) - subnet(x)).abs().max() <= 1e-5


@torch.no_grad()
def test_a_frame_sees_the_window_and_nothing_else():
    layer, x = WindowAttention(6, 2, 4, left=3).eval(), torch.randn(1, 12, 6)
    y = layer(x)
    for frame in (0, 5, 11):
        changed = x.clone()
        changed[:, frame] += 1
        differs = ((layer(changed) - y).abs().amax((0, 2)) > 1e-7).tolist()
        assert differs == [frame <= t <= frame + 3 for t in range(12)]
