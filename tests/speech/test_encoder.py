"""The streaming encoder computes what the whole one does, for every architecture and on every axis."""

import random

import pytest
import torch
from torch import nn

from todm import SearchSpace, activate, extract
from todm.errors import TodmError
from todm.recipe import build
from todm.space import ElasticStack
from todm.speech.encoder import Encoder, EncoderConfig, subsampled, with_previous
from todm.speech.streaming import StreamingEncoder

ALL_AXES = EncoderConfig(
    width=[16, 24, 32], depth=[1, 2, 3], hidden=[8, 24, 40], heads=[2, 4, 8], head_size=4, states=[2, 3, 6], front=12
)
SIZE_OUT = 10


def features(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    """Like log-mel energies: far from zero, each bin with a level and a spread of its own."""
    g = torch.Generator().manual_seed(seed)
    level, spread = torch.linspace(-14, -4, 80), torch.linspace(0.5, 4, 80)
    return level + spread * torch.randn(batch, frames, 80, generator=g)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(ALL_AXES, SIZE_OUT).eval()
    encoder.set_statistics(features(1, 400, seed=7)[0])
    with torch.no_grad():
        for name, p in encoder.named_parameters():
            if "norm" in name or name.endswith("bias"):
                p.add_(0.3 * torch.randn_like(p))
            if name.endswith(("mixer.out.weight", "down.weight")):
                p.mul_(5)  # undo the small start, so that the branches count
    return encoder


def archs(encoder: Encoder, n: int):
    space, rng = SearchSpace.of(encoder), random.Random(0)
    return [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(n))]


def test_the_axes_are_those_of_the_config(encoder):
    assert SearchSpace.of(encoder).choices == {
        "width": (16, 24, 32), "heads": (2, 4, 8), "states": (2, 3, 6), "depth": (1, 2, 3),
        "hidden0": (8, 24, 40), "hidden1": (8, 24, 40), "hidden2": (8, 24, 40),
    }  # fmt: skip
    assert set(SearchSpace.of(Encoder(EncoderConfig(depth=[2], hidden=[8, 16]), 4)).choices) == {
        "depth", "hidden0", "hidden1",
    }  # fmt: skip


@torch.no_grad()
def test_activate_equals_extract_on_every_axis(encoder):
    x, outputs = features(2, 30), {}
    for arch in archs(encoder, 40):
        activate(encoder, arch)
        outputs[str(SearchSpace.of(encoder).canonical(arch))] = y = encoder(x)
        activate(encoder, SearchSpace.of(encoder).largest())
        subnet = extract(encoder, arch)
        assert (subnet(x) - y).abs().max() <= 1e-5
        assert not any(isinstance(module, ElasticStack) for module in subnet.modules())
    values = list(outputs.values())
    assert min((a - b).abs().max() for i, a in enumerate(values) for b in values[:i]) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("frames", "chunks"), [(4, 7), (12, 3), (32, 2), (32, 5)])
def test_streaming_equals_whole(encoder, frames, chunks):
    x = features(3, frames * chunks, seed=frames + chunks)
    for arch in archs(encoder, 6):
        subnet = extract(encoder, arch)
        streaming = StreamingEncoder(subnet, frames).eval()
        size0, size1 = streaming.state_sizes
        assert size0 == arch["depth"] * arch["heads"] * 4 * 2 * arch["states"]
        assert size1 == 80 + 12
        state0, state1, outputs = torch.zeros(1, 3, size0), torch.zeros(1, 3, size1), []
        for chunk in x.split(frames, dim=1):
            y, state0, state1 = streaming(chunk, state0, state1)
            assert y.shape == (3, frames // 4, SIZE_OUT)
            assert (state0.shape, state1.shape) == ((1, 3, size0), (1, 3, size1))
            outputs.append(y)
        assert (torch.cat(outputs, 1) - subnet(x)).abs().max() <= 1e-5


@torch.no_grad()
def test_the_default_sizes_stream_too():
    model = Encoder(EncoderConfig(), 64).eval()
    for arch in (SearchSpace.of(model).smallest(), SearchSpace.of(model).largest()):
        subnet, x = extract(model, arch), features(1, 96)
        streaming = StreamingEncoder(subnet, 32)
        state, outputs = [torch.zeros(1, 1, n) for n in streaming.state_sizes], []
        for chunk in x.split(32, dim=1):
            y, *state = streaming(chunk, *state)
            outputs.append(y)
        assert (torch.cat(outputs, 1) - subnet(x)).abs().max() <= 1e-5


def test_a_chunk_is_a_multiple_of_4_frames(encoder):
    with pytest.raises(ValueError, match="a chunk must be a multiple of 4 frames, not 30"):
        StreamingEncoder(extract(encoder, SearchSpace.of(encoder).smallest()), 30)


@torch.no_grad()
def test_causality(encoder):
    activate(encoder, SearchSpace.of(encoder).largest())
    x = features(1, 41)
    y = encoder(x)
    for frame in (0, 3, 4, 17, 39):
        changed = x.clone()
        changed[:, frame:] += 10
        differs = ((encoder(changed) - y).abs().amax((0, 2)) > 1e-6).tolist()
        # Output k hears frames up to 4k + 3.
        assert differs == [4 * k + 3 >= frame for k in range(11)]


@torch.no_grad()
def test_lengths(encoder):
    for frames in range(1, 14):
        assert encoder(features(1, frames)).shape[1] == int(subsampled(torch.tensor(frames))) == -(-frames // 4)
    x = features(1, 13)
    assert torch.allclose(encoder(x)[:, :3], encoder(x[:, :12]), atol=1e-6)  # padding reaches the last output only


def test_subsampling_is_a_causal_convolution():
    x, previous, weight = torch.randn(2, 8, 3), torch.randn(2, 1, 3), torch.randn(5, 3, 3)
    expected = nn.functional.conv1d(torch.cat([previous, x], 1).transpose(1, 2), weight, stride=2)
    flat = weight.permute(0, 2, 1).reshape(5, 9)  # (out, 3 frames of 3 features)
    rows = with_previous(x, previous)
    assert rows.shape == (2, 4, 9)
    assert torch.allclose(rows @ flat.T, expected.transpose(1, 2), atol=1e-5)


@torch.no_grad()
def test_statistics_normalise_inside_the_encoder(encoder):
    typical = features(1, 500, seed=3)[0]
    typical[:, 5] = -16.0  # a bin at the floor, as of telephone recordings: no spread
    encoder = extract(encoder, SearchSpace.of(encoder).largest())
    encoder.set_statistics(typical)
    x = (typical - encoder.feature_mean) * encoder.feature_scale
    assert x.isfinite().all()
    assert torch.allclose(x.mean(0), torch.zeros(80), atol=1e-3)
    spread = x.std(0)
    assert torch.allclose(spread[[i for i in range(80) if i != 5]], torch.ones(79), atol=1e-3)
    assert spread[5] < 1e-3
    # Level and gain of the input do not matter once they are in the statistics.
    x = features(1, 20)
    x[..., 5] = -16.0
    y = encoder(x)
    encoder.set_statistics(typical * 3 - 7)
    assert torch.allclose(encoder(x * 3 - 7), y, atol=1e-4)
    assert {"feature_mean", "feature_scale"} <= set(encoder.state_dict())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heads": [2, 3]}, "heads and head_size must be even"),
        ({"head_size": 3}, "heads and head_size must be even"),
        ({"hidden": [0, 64]}, r"hidden.1: .*got 0|hidden.0: .*got 0"),
        ({"depth": []}, "depth: "),
        ({"front": 0}, "front: .*got 0"),
        ({"hiden": [64]}, "unknown key 'hiden'; did you mean 'hidden'"),
    ],
)
def test_wrong_sizes_are_one_clear_line(values, message):
    with pytest.raises(TodmError, match=message):
        build(EncoderConfig, values, "recipe.yaml: model")


def test_no_parameter_starts_at_zero():
    for name, p in Encoder(EncoderConfig(), 16).named_parameters():
        assert p.detach().square().mean() > 1e-5, name
