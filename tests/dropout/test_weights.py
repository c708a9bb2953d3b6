"""Methods on weights: the duality in training, pruning, elastic layers, and the trainer's part."""

from pathlib import Path

import numpy as np
import pytest
import torch
from catalogue import ON_WEIGHTS
from torch import nn
from torch.nn import functional as F

from todm import Choice, SearchSpace, activate, dropout, extract
from todm.dropout.duality import LogSum, Lp, Penalty
from todm.dropout.duality.methods import FLOOR
from todm.dropout.duality.penalties import penalty_from
from todm.dropout.hard_concrete import gate
from todm.dropout.sparse_variational import divergence
from todm.elastic import ElasticConv2d, ElasticLinear, ElasticStack
from todm.errors import TodmError

GOLDEN = np.load(Path(__file__).parent.parent / "data" / "penalties.npz", allow_pickle=False)
X, Y = torch.tensor(GOLDEN["duality.X"]), torch.tensor(GOLDEN["duality.y"])
LAMBDA, EPS = float(GOLDEN["duality.lambda"]), float(GOLDEN["duality.logsum_eps"])
IRLS = torch.tensor(GOLDEN["duality.irls_w"])
DUAL = {"penalty": {"name": "log_sum", "eps": EPS}, "lam": LAMBDA}


def regression(name: str, w: torch.Tensor, **arguments) -> nn.Linear:
    """y = X w as a layer with a method on its weight."""
    layer = nn.Linear(len(w), 1, bias=False).double()
    layer.weight.data = w.clone()[None]
    model = nn.ModuleDict({"layer": layer})
    dropout.install(model, {"weights:layer": {"method": name, **arguments}})
    return model.double()["layer"]


class Given(Penalty):
    """eta of the golden masks, whatever the weight; a mask needs nothing else of a penalty."""

    def _eta_hat(self, w):
        keep = torch.tensor(GOLDEN["duality.keep"])
        return (LAMBDA * keep / (1 - keep)).expand_as(w)

    _omega = _f = None


def tikhonov(keep: torch.Tensor) -> float:
    """The expected dropout loss at the least-squares weights in closed form: columns of X have squared norm n."""
    w = IRLS[0]
    return float(((Y - X @ w) ** 2).sum() / 2 + len(Y) * (w**2 * (1 - keep) / keep).sum() / 2)


@pytest.mark.parametrize("form", [Given(), LogSum(EPS), Lp(1.0)])
@pytest.mark.parametrize("name", ["adaptive_bernoulli", "adaptive_gaussian"])
def test_the_mean_dropout_loss_is_the_closed_form_tikhonov_loss(name, form):
    torch.manual_seed(0)
    layer = regression(name, IRLS[0], penalty=form, lam=LAMBDA).train()
    method, draws = layer.parametrizations.weight[0], 400_000
    with torch.no_grad():  # as many rows as draws: the mask of each weight is drawn for itself
        weights = method.noisy(IRLS[0].expand(draws, -1))
    losses = ((Y - weights @ X.T) ** 2).sum(1) / 2
    expected = tikhonov(form.keep(IRLS[0], LAMBDA))
    if isinstance(form, Given):
        assert expected == pytest.approx(float(GOLDEN["duality.expected_loss"]), rel=1e-9)
    assert 3 * float(losses.std()) / draws**0.5 < 0.01 * expected  # the test can tell one per cent
    assert float(losses.mean()) == pytest.approx(expected, rel=0.01)
    np.testing.assert_allclose(weights.mean(0), IRLS[0], atol=5 * float(weights.std(0).max()) / draws**0.5)


def test_adaptive_tikhonov_has_the_golden_loss_and_gradient():
    layer = regression("adaptive_tikhonov", IRLS[0], penalty=Given(), lam=LAMBDA).train()
    loss = ((Y - layer(X)[:, 0]) ** 2).sum() / 2 + len(Y) * dropout.penalty(layer)
    assert float(loss.detach()) == pytest.approx(float(GOLDEN["duality.expected_loss"]), rel=1e-9)
    loss.backward()
    gradient = layer.parametrizations.weight.original.grad[0]
    np.testing.assert_allclose(gradient, GOLDEN["duality.expected_loss_grad_w"], atol=1e-9)


def support(w: torch.Tensor) -> list[bool]:
    return (w.abs() > 1e-3).tolist()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["adaptive_bernoulli", "adaptive_gaussian"])
def test_adaptive_dropout_finds_the_support_that_reweighted_least_squares_finds(name, seed):
    torch.manual_seed(seed)
    layer = regression(name, IRLS[0], **DUAL).train()
    (method,), original = layer.parametrizations.weight, layer.parametrizations.weight.original
    optimizer = torch.optim.SGD(layer.parameters(), 0.02)
    for update in range(1500):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - update / 1500)
        optimizer.zero_grad()
        weights = method.noisy(original.expand(64, -1))  # 64 masks an update
        (((Y - weights @ X.T) ** 2).mean() / 2).backward()
        optimizer.step()
    found, last = layer.eval().weight[0].detach(), IRLS[-1]
    assert 0 < sum(support(last)) < len(last)
    assert [bool(value) for value in found != 0] == support(last)
    np.testing.assert_allclose(found, last, atol=0.01)


@pytest.mark.parametrize("name", ["adaptive_tikhonov", "adaptive_prox", "direct_penalty"])
def test_so_do_the_methods_without_noise(name):
    layer = regression(name, IRLS[0], **DUAL).train()
    optimizer = torch.optim.SGD(layer.parameters(), 0.02)
    for update in range(1500):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - update / 1500)
        optimizer.zero_grad()
        loss = ((Y - layer(X)[:, 0]) ** 2).mean() / 2
        term = dropout.penalty(layer)
        (loss if term is None else loss + term).backward()
        optimizer.step()
        dropout.after_step(layer, optimizer)
    found, last = layer.eval().weight[0].detach(), IRLS[-1]
    assert [bool(value) for value in found != 0] == support(last)
    np.testing.assert_allclose(found, last, atol=0.01)


def test_the_eta_trick_is_the_penalty_at_its_minimum():
    w = torch.tensor([0.7, -0.2, 0.05], dtype=torch.float64)
    layer = regression("eta_trick", w, **DUAL)
    method = layer.parametrizations.weight[0]
    assert dropout.penalty(layer).item() == pytest.approx(LAMBDA * LogSum(EPS).omega(w).sum().item(), rel=1e-9)
    gradient = torch.autograd.grad(dropout.penalty(layer), method.log_eta)[0]
    assert gradient.abs().max() < 1e-12  # eta starts at its optimum
    method.log_eta.data += 0.3
    assert dropout.penalty(layer).item() > LAMBDA * LogSum(EPS).omega(w).sum().item()


def test_the_proximal_step_is_the_minimiser_it_stands_for():
    w = torch.tensor([0.7, -0.2, 0.0], dtype=torch.float64)
    layer = regression("adaptive_prox", w, penalty={"name": "lp", "p": 0.5}, lam=0.3)
    original = layer.parametrizations.weight.original
    original.grad = torch.zeros_like(original)
    dropout.after_step(layer, torch.optim.SGD([original], 0.1))
    eta = Lp(0.5).eta_hat(w)
    np.testing.assert_allclose(original[0].detach(), w * eta / (eta + 0.1 * 0.3 + 1e-300), atol=1e-12)
    # argmin of (v - w)^2 / (2 step) + lam v^2 / (2 eta), by its derivative
    v = original[0].detach()[:2]
    np.testing.assert_allclose((v - w[:2]) / 0.1 + 0.3 * v / eta[:2], 0, atol=1e-9)


def test_the_proximal_step_follows_adam_s_step_of_each_weight():
    w = torch.tensor([0.5, 0.5], dtype=torch.float64)
    layer = regression("adaptive_prox", w, penalty="lp", lam=0.01)
    original = layer.parametrizations.weight.original
    optimizer = torch.optim.AdamW(layer.parameters(), 1e-3, weight_decay=0)
    original.grad = torch.tensor([[1e-3, 1e-1]], dtype=torch.float64)
    optimizer.step()
    moved = original[0].detach().clone()
    dropout.after_step(layer, optimizer)
    steps = 1e-3 / torch.tensor([1e-3, 1e-1], dtype=torch.float64)
    np.testing.assert_allclose(original[0].detach(), moved * moved / (moved + steps * 0.01), rtol=1e-4)
    original.grad = None
    before = original.detach().clone()
    dropout.after_step(layer, optimizer)
    assert torch.equal(original, before)  # an update that did not train the layer does not shrink it


class Stack(nn.Module):
    """(batch, 2, 4, 4) -> (batch, 3), with an elastic convolution and elastic layers of which depth uses some."""

    def __init__(self):
        super().__init__()
        channels = Choice("channels", (2, 4))
        hidden = [Choice(f"hidden{i}", (3, 6)) for i in range(2)]
        self.conv = ElasticConv2d(2, channels, 3)
        self.stack = ElasticStack([ElasticLinear(channels, channels) for _ in range(2)], Choice("depth", (1, 2)))
        self.up, self.head = ElasticLinear(channels, hidden[0]), ElasticLinear(hidden[0], 3)

    def forward(self, x):
        x = self.conv(x).mean((2, 3))
        for layer in self.stack:
            x = layer(x)
        return self.head(self.up(x).relu())


PLACES = ("conv", "stack.0", "stack.1", "up")


@pytest.mark.parametrize("name", ON_WEIGHTS)
def test_elastic_layers_train_prune_and_extract(name):
    torch.manual_seed(0)
    model = Stack()
    keys = set(extract(model, SearchSpace.of(model).largest()).state_dict())
    dropout.install(model, {f"weights:{place}": {"method": name} for place in PLACES})
    x = torch.randn(5, 2, 4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    space = SearchSpace.of(model)
    for arch in (space.largest(), space.smallest()):
        activate(model, arch)
        loss = model.train()(x).square().mean()
        term = dropout.penalty(model)
        (loss if term is None else loss + term).backward()
    optimizer.step()
    dropout.after_step(model, optimizer)
    assert all(parameter.grad is not None for parameter in model.parameters())
    activate(model, space.smallest())
    with torch.no_grad():  # a few weights small enough to be closed
        for place in PLACES:
            weight = model.get_submodule(place).parametrizations.weight
            weight.original.view(-1)[::2] = 1e-9
            if name == "eta_trick":
                weight[0].log_eta.view(-1)[::2] = -30
            elif name == "hard_concrete":
                weight[0].log_a.view(-1)[::2] = -30
    count, total = dropout.nonzero(model.eval())
    subnet = extract(model.train(), space.smallest())
    assert set(subnet.state_dict()) == {key for key in keys if "stack.1" not in key}
    assert torch.allclose(subnet(x), model.eval()(x), atol=1e-6)
    parts = [subnet.conv, subnet.stack[0], subnet.up]
    assert count == sum(int((layer.weight != 0).sum()) for layer in parts)
    assert total == sum(layer.weight.numel() for layer in parts)
    assert sum(int((layer.weight == 0).sum()) for layer in parts) > 0
    assert [type(layer) for layer in parts] == [nn.Conv2d, nn.Linear, nn.Linear]
    again = extract(model, space.largest())  # the first extraction left the supernet whole
    activate(model, space.largest())
    assert torch.allclose(again(x), model(x), atol=1e-6)


def test_only_the_active_part_is_penalised():
    model = Stack()
    dropout.install(
        model, {f"weights:{place}": {"method": "direct_penalty", "penalty": "lp", "lam": 0.5} for place in PLACES}
    )
    for depth in (1, 2):
        activate(model, {"channels": 2, "depth": depth, "hidden0": 3})
        used = [model.conv.weight[:2], model.stack[0].weight[:2, :2], model.up.weight[:3, :2]]
        used += [model.stack[1].weight[:2, :2]] if depth == 2 else []
        expected = 0.5 * sum(w.detach().abs().sum().item() for w in used)
        assert dropout.penalty(model).item() == pytest.approx(expected, rel=1e-6)
    assert dropout.penalty(Stack()) is None


def test_pruning_goes_by_the_lambda_of_training_in_copies_too():
    layer = regression(
        "direct_penalty",
        torch.tensor([0.5, 0.01, 0.001]),
        penalty="lp",
        lam={"schedule": "linear", "start": 0.0, "end": 0.1},
        closed=0.3,
    )
    rates = dropout.Rates(layer, total=10)
    assert [bool(v) for v in layer.eval().weight[0] != 0] == [True, True, True]
    rates.step(10)
    _ = layer.train().weight
    fresh = regression(
        "direct_penalty", torch.zeros(3), penalty="lp", lam={"schedule": "linear", "start": 0.0, "end": 0.1}, closed=0.3
    )
    fresh.load_state_dict(layer.state_dict())
    assert [bool(v) for v in fresh.eval().weight[0] != 0] == [True, False, False]
    assert rates.values() == {"weight.lam": pytest.approx(0.1)}


def test_any_noise_without_a_mean_goes_on_weights_too():
    torch.manual_seed(0)
    layer = regression("standard", torch.ones(1000), rate=0.3).train()  # DropConnect
    assert (layer.weight == 0).double().mean().item() == pytest.approx(0.3, abs=0.05)
    assert torch.equal(layer.eval().weight, torch.ones(1, 1000, dtype=torch.float64))


def test_the_divergence_of_variational_dropout_and_its_noise():
    alpha = torch.tensor([-30.0, 0.0, 30.0])
    assert divergence(alpha)[2].item() == pytest.approx(0, abs=1e-6)
    assert divergence(alpha).diff().max() < 0
    torch.manual_seed(0)
    layer = regression("sparse_variational", torch.full((20_000,), 2.0), scale=0.1, threshold=3.0).train()
    method = layer.parametrizations.weight[0]
    method.log_variance.data[:] = np.log(0.09)
    assert layer.weight.std().item() == pytest.approx(0.3, rel=0.03)
    expected = 0.1 * 20_000 * float(divergence(torch.tensor(np.log(0.09 / 4))))
    assert dropout.penalty(layer).item() == pytest.approx(expected, rel=1e-6)
    method.log_variance.data[0, :5000] = np.log(4 * np.exp(3.01))
    assert dropout.nonzero(layer.eval()) == (15_000, 20_000)


def test_hard_concrete_gates_have_the_golden_moments():
    torch.manual_seed(0)
    for i in range(0, 33, 8):
        s = gate(
            torch.tensor(GOLDEN["hard_concrete.log_a"][i]).expand(200_000), torch.rand(200_000, dtype=torch.float64)
        )
        assert s.mean().item() == pytest.approx(float(GOLDEN["hard_concrete.mean"][i]), abs=4e-3)
        assert (s > 0).double().mean().item() == pytest.approx(float(GOLDEN["hard_concrete.p_nonzero"][i]), abs=4e-3)
    layer = regression("hard_concrete", torch.ones(6), lam=0.5)
    method = layer.parametrizations.weight[0]
    method.log_a.data = torch.tensor(GOLDEN["hard_concrete.log_a"][::6])[None]
    expected = 0.5 * GOLDEN["hard_concrete.p_nonzero"][::6].sum()
    assert dropout.penalty(layer).item() == pytest.approx(float(expected), rel=1e-6)
    by_input = dropout.create("hard_concrete", weight=torch.ones(4, 3), by_input=True)
    assert by_input(torch.ones(4, 3)).std(0).max() == 0


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"weights:up": {"method": "standout"}}, "standout acts on activations, not on weights"),
        ({"weights:stack": {"method": "adaptive_prox"}}, "ElasticStack has no weight to act on"),
        ({"weights:down": {"method": "adaptive_prox"}}, "no module 'down'"),
        ({"before:up": {"method": "adaptive_prox"}}, "adaptive_prox acts on weights: name the place weights:PATH"),
        ({"weights:up": {"method": "adaptive_prox", "penalty": "logsum"}}, "one of lp, log_sum"),
        ({"weights:up": {"method": "adaptive_prox", "penalty": {"name": "scad", "b": 1}}}, "its arguments are a, lam"),
    ],
)
def test_what_a_user_gets_wrong_is_one_clear_line(block, message):
    with pytest.raises(TodmError, match=message):
        dropout.install(Stack(), block)


def test_a_wrapped_layer_takes_a_method_on_its_weights_whatever_the_order():
    model = Stack()
    dropout.install(model, {"before:up": {"method": "standard"}, "weights:up": {"method": "adaptive_prox"}})
    assert dropout.nonzero(model.eval())[1] == 24
    assert type(extract(model, SearchSpace.of(model).largest()).up) is nn.Linear


def test_the_floor_keeps_the_noise_finite():
    layer = regression("adaptive_bernoulli", torch.tensor([1e-30, 0.0]), **DUAL).train()
    drawn = torch.stack([layer.weight[0].detach() for _ in range(3000)])
    assert torch.isfinite(drawn).all()
    assert drawn.max() == pytest.approx(1e-30 / FLOOR)
    assert penalty_from(DUAL["penalty"]).keep(torch.zeros(1), 0.0) == 1
    assert F.mse_loss(layer.eval().weight[0], torch.zeros(2, dtype=torch.float64)) == 0
