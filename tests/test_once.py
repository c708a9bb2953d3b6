"""What the nets of an update share is computed once, and its gradient is the sum of theirs."""

import copy
import random

import pytest
import torch

from todm import SearchSpace, activate
from todm.distill import divergence
from todm.once import Once, computed_once
from todm.sandwich import accumulate_gradients, sandwich
from todm.speech.encoder import EncoderConfig
from todm.speech.ssm import DiagonalSSM
from todm.speech.transducer import Transducer
from todm.task import LossOutput


def speech_model(**sizes) -> Transducer:
    torch.manual_seed(0)
    config = EncoderConfig(depth=[1, 2], hidden=[8, 16], front=8, **{"width": [16], "heads": [2]} | sizes)
    return Transducer(config, 7, 12, 8)


def loss(model, batch) -> LossOutput:
    features, tokens = batch
    logits = model.lattice(model.encoder(features), tokens).log_softmax(-1)
    return LossOutput(logits[..., 1].exp().mean(), logits, torch.ones(logits.shape[:-1]))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(3, 22, 80), torch.randint(1, 7, (3, 4))


def gradients(model, batch, archs):
    accumulate_gradients(model, loss, batch, archs, divergence("kl"), 0.3)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chosen", [{}, {"width": [8, 16]}, {"heads": [2, 4]}, {"states": [4, 8]}], ids=str)
def test_gradients_are_those_of_nets_that_compute_everything(batch, chosen, monkeypatch):
    model = speech_model(**chosen)
    archs = sandwich(SearchSpace.of(model), random.Random(0), 2)
    shared = gradients(copy.deepcopy(model), batch, archs)
    monkeypatch.setattr(Once, "__call__", lambda once, *source: once.function(*source))
    alone = gradients(model, batch, archs)
    assert shared.keys() == alone.keys()
    assert "encoder.front_in.weight" in shared and "predictor.embed.weight" in shared
    for name, gradient in alone.items():
        torch.testing.assert_close(shared[name], gradient, rtol=1e-5, atol=1e-7)


def test_kernels_are_computed_once_an_update_whatever_the_heads(batch, monkeypatch):
    model, computed, toeplitz = speech_model(heads=[2, 4]), [], DiagonalSSM.toeplitz

    def count(ssm, length, size=None):
        computed.append(size)
        return toeplitz(ssm, length, size)

    monkeypatch.setattr(DiagonalSSM, "toeplitz", count)
    space = SearchSpace.of(model)
    gradients(model, batch, {"largest": space.largest(), "smallest": space.smallest()})
    assert computed == [(4, 16)] * 2
    activate(model, space.smallest())
    model.encoder(batch[0])
    assert computed[2:] == [(2, 16)]


def test_the_front_end_runs_once_an_update(batch):
    model, runs = speech_model(), []
    model.encoder.front_in.register_forward_hook(lambda *_: runs.append("front"))
    model.predictor.register_forward_hook(lambda *_: runs.append("predictor"))
    model.encoder.blocks[0].mixer.register_forward_hook(lambda *_: runs.append("mixer"))
    space = SearchSpace.of(model)
    gradients(model, batch, sandwich(space, random.Random(0), 2))
    assert sorted(runs) == ["front", "mixer", "predictor"]
    activate(model, space.smallest())
    loss(model, batch), loss(model, batch)
    assert runs.count("front") == 3, "outside an update nothing is kept"


@pytest.mark.parametrize(
    ("chosen", "once"), [({"width": [8, 16]}, 1), ({"heads": [2, 4]}, 2), ({"states": [4, 8]}, 2)], ids=str
)
def test_what_lies_before_the_first_choice_runs_once(batch, chosen, once):
    model, runs = speech_model(**chosen), []
    layers = model.encoder.front_in, model.encoder.front_out, model.encoder.blocks[0].mixer
    for place, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, place=place: runs.append(place))
    gradients(model, batch, sandwich(SearchSpace.of(model), random.Random(0), 1))
    assert [runs.count(place) for place in range(3)] == [1] * once + [3] * (3 - once)


def test_another_input_is_computed_anew_and_keeps_its_gradient():
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.once = Once(layer.forward)
    first, second = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])
    with computed_once(layer):
        for source in (first, first.clone(), second):
            layer.once(source).sum().backward()
    assert layer.weight.grad.tolist() == [[5.0, 9.0]]


def test_a_copy_computes_with_its_own_weights(batch):
    model = speech_model()
    other = copy.deepcopy(model)
    torch.nn.init.zeros_(other.predictor.project.weight)
    torch.nn.init.zeros_(other.predictor.project.bias)
    with computed_once(other):
        assert not other.predicted(batch[1]).any()
    assert model.predicted(batch[1]).any()


def test_nothing_is_kept_after_an_error(batch):
    model = speech_model()

    def fails(model, batch):
        model.predicted(batch[1])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        accumulate_gradients(model, fails, batch, {"only": SearchSpace.of(model).largest()}, divergence("kl"), 0.0)
    assert model.predicted.kept is None
    assert not model.predicted.keeps


def test_a_frozen_part_gets_no_gradient(batch):
    model = speech_model()
    model.encoder.front_in.requires_grad_(False)
    model.encoder.front_out.requires_grad_(False)
    found = gradients(model, batch, sandwich(SearchSpace.of(model), random.Random(0), 0))
    assert not any("front" in name for name in found)
    assert "encoder.project.weight" in found
