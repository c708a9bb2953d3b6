"""Standout is the paper's: golden nets, closed forms, unbiasedness, and the gradient of its mask network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from todm import Choice, dropout
from todm.dropout.standout import BiasStandout, LearntStandout, TiedStandout, masked
from todm.errors import TodmError

DATA = np.load(Path(__file__).parent.parent / "data" / "standout.npz", allow_pickle=False)
GOLDEN = {key: torch.from_numpy(DATA[key]) for key in DATA.files}
X, TARGET, LABEL = GOLDEN["x"], GOLDEN["target"], GOLDEN["label"]


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=1e-12)


class Net(nn.Module):
    """The golden net: two hidden rectified layers, each with a standout method, and a linear read-out."""

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(5, 7), nn.Linear(7, 6), nn.Linear(6, 3)]).double()
        for layer, name in zip(self.layers, "12o", strict=True):
            layer.weight.data, layer.bias.data = GOLDEN[f"param.W{name}"].clone(), GOLDEN[f"param.b{name}"].clone()
        self.drops = nn.ModuleList([first, second]).double()

    def forward(self, x, uniform=None):
        self.keeps, self.hidden = [], []
        for i, (layer, drop) in enumerate(zip(self.layers, self.drops, strict=False)):
            z = layer(x)
            keep = drop.keep(z.relu(), z, x)
            x = z.relu() * keep if uniform is None else masked(z.relu(), keep, uniform[i])
            self.keeps.append(keep)
            self.hidden.append(x)
        return self.layers[2](x)


def learnt() -> Net:
    net = Net(LearntStandout(7, 5), LearntStandout(6, 7))
    for drop, name in zip(net.drops, "12", strict=True):
        drop.weight.data, drop.bias.data = GOLDEN[f"param.Pi{name}"].clone(), GOLDEN[f"param.pb{name}"].clone()
    return net


def mse(output: Tensor) -> Tensor:
    return ((output - TARGET) ** 2).sum(1).mean() / 2


def gradients(net: Net, loss: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    loss.backward()
    found = {}
    for layer, name in zip(net.layers, "12o", strict=True):
        found |= {f"W{name}": layer.weight.grad, f"b{name}": layer.bias.grad}
    for drop, name in zip(net.drops, "12", strict=True):
        if isinstance(drop, LearntStandout):
            found |= {f"Pi{name}": drop.weight.grad, f"pb{name}": drop.bias.grad}
    return found


def test_the_learnt_net_is_the_golden_one():
    net = learnt().eval()
    output = net(X)
    assert close(output, GOLDEN["untied.eval_output"])
    for i in (0, 1):
        assert close(net.keeps[i], GOLDEN[f"untied.keep{i + 1}"])
        assert close(net.hidden[i], GOLDEN[f"untied.eval_hidden{i + 1}"])
    for key, loss in (("mse", mse(output)), ("ce", nn.functional.cross_entropy(net(X), LABEL))):
        assert float(loss.detach()) == pytest.approx(float(GOLDEN[f"untied.{key}_loss"]), abs=1e-12)
        for name, gradient in gradients(net, loss).items():
            assert close(gradient, GOLDEN[f"untied.{key}_grad.{name}"]), name
    sampled = net(X, (GOLDEN["u1"], GOLDEN["u2"]))
    assert close(sampled, GOLDEN["untied.train_output"])
    assert close(net.keeps[1], GOLDEN["untied.train_keep2"])


@pytest.mark.parametrize("case", range(4))
def test_the_tied_nets_are_the_golden_ones(case):
    alpha, beta = GOLDEN["alpha_beta"][case].tolist()
    for detach, word in ((True, "detached"), (False, "attached")):
        net = Net(TiedStandout(alpha, beta, detach), TiedStandout(alpha, beta, detach)).eval()
        output = net(X)
        assert close(output, GOLDEN[f"tied{case}.eval_output"])
        assert close(net.keeps[1], GOLDEN[f"tied{case}.keep2"])
        assert float(mse(output).detach()) == pytest.approx(float(GOLDEN[f"tied{case}.mse_loss"]), abs=1e-12)
        for name, gradient in gradients(net, mse(output)).items():
            assert close(gradient, GOLDEN[f"tied{case}.mse_grad_{word}.{name}"]), name
    assert close(net(X, (GOLDEN["u1"], GOLDEN["u2"])), GOLDEN[f"tied{case}.train_output"])


@pytest.mark.parametrize("name", ["standout", "standout_bias", "standout_learnt"])
def test_the_mean_of_the_training_output_is_the_eval_output(name):
    torch.manual_seed(0)
    draws, units = 40_000, 5
    arguments = {"standout": {"alpha": 1.5, "beta": 0.3}, "standout_bias": {"width": units, "beta": 0.8}}
    method = dropout.create(name, **arguments.get(name, {"width": units, "source_width": 3, "beta": -0.4}))
    z, source = torch.randn(units), torch.randn(3)
    many = {
        "standout": {"preactivation": z.expand(draws, units)},
        "standout_learnt": {"source": source.expand(draws, 3)},
    }
    x = torch.rand(units).expand(draws, units) + 0.5
    output = method.train()(x, **many.get(name, {}))
    expected = method.eval()(x, **many.get(name, {}))[0]
    assert set(torch.unique(output[:, 0]).tolist()) == {0.0, x[0, 0].item()}  # no inverted scaling
    error = x[0] * 0.5 / draws**0.5
    assert (output.mean(0) - expected).abs().div(error).max() < 4.5


@pytest.mark.parametrize("beta", [-1.0, 0.0, 2.0])
def test_without_a_slope_it_is_dropout_with_keep_sigmoid_beta(beta):
    torch.manual_seed(0)
    x = torch.rand(500, 400) + 0.5
    keep = torch.sigmoid(torch.tensor(beta))
    method = TiedStandout(0.0, beta)
    assert torch.allclose(method.eval()(x), keep * x)
    kept = method.train()(x, torch.randn_like(x)) > 0
    assert kept.float().mean() == pytest.approx(float(keep), abs=4e-3)
    # Independent units: neighbours are kept together as often as chance has it.
    assert (kept[:, 1:] & kept[:, :-1]).float().mean() == pytest.approx(float(keep) ** 2, abs=5e-3)


def test_the_gradient_of_the_mask_network_is_that_of_differences():
    net = learnt().eval()
    drop = net.drops[0]
    found = gradients(net, mse(net(X)))
    step = 1e-5
    for key, parameter in (("Pi1", drop.weight), ("pb1", drop.bias)):
        flat = parameter.data.view(-1)
        for i in range(0, len(flat), 5):
            value = float(flat[i])
            losses = []
            for moved in (value + step, value - step):
                flat[i] = moved
                losses.append(float(mse(net(X)).detach()))
            flat[i] = value
            assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(float(found[key].view(-1)[i]), abs=1e-6)


def test_training_reaches_the_mask_network_through_sampled_masks():
    torch.manual_seed(0)
    method = LearntStandout(4, 3)
    source, x = torch.randn(20_000, 3), torch.rand(4).expand(20_000, 4)
    method.train()(x, source).sum().backward()
    sampled = method.weight.grad.clone()
    method.zero_grad()
    method.eval()(x, source).sum().backward()
    assert torch.allclose(sampled, method.weight.grad, rtol=1e-4)  # linear in the mask: no noise in this gradient


def test_elastic_widths_use_the_first_units():
    width, inputs = Choice("width", (2, 4)), Choice("inputs", (3, 5))
    learnt_, bias = LearntStandout(width, inputs).eval(), BiasStandout(width, 0.5).eval()
    x, source = torch.randn(6, 2), torch.randn(6, 3)
    width.active, inputs.active = 2, 3
    keep = torch.sigmoid(source @ learnt_.weight[:2, :3].T + learnt_.bias[:2])
    assert torch.allclose(learnt_(x, source), x * keep)
    for method, arguments in ((learnt_, (source,)), (bias, ())):
        left = method.deployed()
        assert torch.allclose(left.train()(x, *arguments), method(x, *arguments))
        assert all(p.shape in ((2, 3), (2,)) for p in left.state_dict().values())
    image = torch.rand(3, 2, 4, 5)
    assert torch.allclose(bias(image), image * torch.sigmoid(bias.bias[:2])[:, None, None])
    with pytest.raises(TodmError, match=r"call site\(x, source=...\)"):
        learnt_(x)


def test_a_missing_preactivation_is_no_matter_to_a_rectified_layer():
    z = torch.randn(50, 20)
    method = TiedStandout(1.3, -0.2).eval()
    assert torch.equal(method(z.relu(), z), method(z.relu()))


def test_wrong_arguments_are_listed():
    with pytest.raises(TodmError, match="'standout' has no argument 'gamma'; it has alpha, beta, detach"):
        dropout.create("standout", gamma=1.0)
