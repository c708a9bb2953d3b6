"""What the methods at sites do in training: keep ratio, mean, variance, what is shared; and nothing in eval."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from catalogue import ON_ACTIVATIONS, ON_IMAGES, STANDOUT, UNITS, made
from torch import nn

from todm import Choice, dropout
from todm.dropout.block import block_mask
from todm.dropout.mixture import mixture
from todm.errors import TodmError

GOLDEN = np.load(Path(__file__).parent.parent / "data" / "extras.npz", allow_pickle=False)
UNBIASED = (
    "adaptive_width", "annealed_mixture", "concrete", "curriculum", "drop_path", "dynamic", "early", "gaussian",
    "learnt_mixture", "spatial", "standard",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def example(name: str) -> torch.Tensor:
    return torch.rand(4, 3, 8, 8) + 0.5 if name in ON_IMAGES else torch.rand(4, 7, UNITS) + 0.5


def later(method: nn.Module) -> nn.Module:
    """A method in the middle of its schedule."""
    rates = dropout.Rates(method, total=1000)
    for value in rates._rates.values():
        value.fill(layer=0, layers=1)
    rates.step(100)
    return method


@pytest.mark.parametrize("name", [name for name in ON_ACTIVATIONS if name not in STANDOUT])
def test_training_is_noisy_and_eval_is_the_identity(name):
    method, x = later(made(name)), example(name)
    outputs = [method.train()(x) for _ in range(30)]
    assert any(not torch.equal(output, x) for output in outputs)
    assert all(output.shape == x.shape and output.dtype == x.dtype for output in outputs)
    assert method.eval()(x) is x
    assert method.train()(x.bfloat16()).dtype == torch.bfloat16
    assert name == "concrete" or "rate=" in repr(method)


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_is_the_input(name):
    method = later(made(name)).train()
    draws = torch.stack([method(torch.ones(2000, 1, UNITS)).detach().mean() for _ in range(10)])
    error = float(draws.std()) / 10**0.5
    assert float(draws.mean()) == pytest.approx(1, abs=max(5 * error, 1e-3))


def test_standard_and_gaussian_have_one_variance():
    x, rate = torch.ones(1000, 1000), 0.3
    for name in ("standard", "gaussian"):
        y = dropout.create(name, rate=rate)(x)
        assert y.var().item() == pytest.approx(rate / (1 - rate), rel=0.02)
    assert (dropout.create("standard", rate=rate)(x) == 0).float().mean() == pytest.approx(rate, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "shape", "alike"),
    [
        ("spatial", (50, 30, 4, 5), (2, 3)),
        ("spatial", (50, 6, 30), (1,)),
        ("drop_path", (500, 3, 4), (1, 2)),
        ("annealed_mixture", (50, 30, 4, 5), (2, 3)),
    ],
)
def test_what_is_dropped_together(name, shape, alike):
    y = dropout.create(name, **({"weight": 0.3} if name == "annealed_mixture" else {}), rate=0.4)(torch.ones(shape))
    flat = y.amax(alike)
    assert torch.equal(flat, y.amin(alike))
    low = 0.3 if name == "annealed_mixture" else 0.0
    assert flat.unique().tolist() == pytest.approx([low, low + (1 - low) / 0.6])
    assert (flat < 0.5).float().mean().item() == pytest.approx(0.4, abs=0.07)


def test_the_mixture_is_the_published_one():
    x, mask = torch.tensor(GOLDEN["mixture.example_x"]), torch.tensor(GOLDEN["mixture.example_keep_mask"])
    p, q = float(GOLDEN["mixture.example_p"]), float(GOLDEN["mixture.example_q"])
    y = mixture(x, p, mask[:, :, None, None].double() / (1 - q))
    np.testing.assert_allclose(y, GOLDEN["mixture.example_y"], atol=1e-12)


@pytest.mark.parametrize(("i", "j"), [(0, 3), (1, 3), (2, 2), (3, 4), (4, 3), (1, 0)])
def test_mean_and_variance_of_the_mixture_s_multiplier(i, j):
    p, q = float(GOLDEN["mixture.p"][i]), float(GOLDEN["mixture.q"][j])
    y = dropout.create("annealed_mixture", rate=q, weight=p)(torch.ones(500, 2000, 1, 1, dtype=torch.float64))
    values = {round(v, 9) for v in y.unique().tolist()}
    expected = {round(float(GOLDEN[f"mixture.multiplier_{word}"][i, j]), 9) for word in ("dropped", "kept")}
    assert values <= expected
    assert y.mean().item() == pytest.approx(float(GOLDEN["mixture.mean"][i, j]), abs=5e-3)
    variance = float(GOLDEN["mixture.variance"][i, j])
    assert variance == pytest.approx((1 - p) ** 2 * q / (1 - q), abs=1e-12)
    assert y.var().item() == pytest.approx(variance, rel=0.02, abs=1e-12)


def test_a_learnt_mixture_has_one_weight_a_channel():
    width = Choice("w", (2, 4))
    method = dropout.create("learnt_mixture", width=width, weight=0.25, rate=0.5)
    method.logit.data = torch.tensor([0.0, 40.0, -40.0, 0.0])
    y = method(torch.ones(2000, 4, 2, 2))
    assert torch.equal(y[:, 1], torch.ones_like(y[:, 1]))  # weight 1: the input itself
    assert y[:, 2].unique().tolist() == pytest.approx([0, 2])  # weight 0: dropout
    assert y[:, 0].unique().tolist() == pytest.approx([0.5, 1.5])
    width.active = 2
    assert method(torch.ones(3, 2)).shape == (3, 2)
    method(torch.ones(3, 2)).sum().backward()
    assert method.logit.grad.shape == (4,)


def test_layer_drop_takes_a_branch_or_leaves_it():
    method = dropout.create("layer_drop", rate=0.25)
    seen = [method(torch.ones(3, 2)).unique().tolist() for _ in range(2000)]
    assert {value for (value,) in seen} == {0.0, 1.0}  # the whole batch, unscaled
    assert np.mean([value == [0.0] for value in seen]) == pytest.approx(0.25, abs=0.04)


def test_drop_block_drops_squares_of_about_the_rate():
    for size in (1, 3, 5):
        mask = block_mask(torch.empty(100, 8, 20, 20), 0.1, size)
        assert mask.unique().tolist() == [0, 1]
        assert 1 - mask.mean().item() == pytest.approx(0.1, rel=0.1)
    lonely = block_mask(torch.empty(2000, 1, 9, 9), 0.01, 3)
    holes = (1 - lonely).sum((1, 2, 3))
    assert holes[holes > 0].min() == 9  # a whole block, always inside the map
    one = (1 - lonely[holes == 9][0, 0]).nonzero()
    assert (one.amax(0) - one.amin(0)).tolist() == [2, 2]
    y = dropout.create("drop_block", rate=0.3, size=3)(torch.ones(4, 2, 12, 12))
    assert y.mean().item() == pytest.approx(1, abs=1e-5)
    assert dropout.create("drop_block", rate=0.3, size=7)(torch.ones(1, 1, 3, 3)).shape == (1, 1, 3, 3)


def test_nested_dropout_keeps_the_first_features():
    y = dropout.create("nested", rate=0.2)(torch.ones(40_000, 10))
    kept = y.sum(1)
    assert torch.equal(y, (torch.arange(10) < kept[:, None]).float())
    for k in (1, 3, 6):
        assert (kept > k).float().mean().item() == pytest.approx(0.8**k, abs=0.01)
    image = dropout.create("nested", rate=0.2)(torch.ones(100, 6, 2, 2))
    assert (image[:, 0] == 1).all() and (image[:, 5] == 0).any()


def test_concrete_dropout_learns_its_rate():
    method = dropout.create("concrete", width=50, rate=0.3, scale=0.01)
    x = torch.ones(4000, 50)
    # At a low temperature nearly every mask is 0 or 1 / (1 - p): dropout, but with a gradient in p.
    assert (method(x) < 0.5 / 0.7).float().mean().item() == pytest.approx(0.3, abs=5e-3)
    p = torch.sigmoid(method.logit).item()
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert method.penalty().item() == pytest.approx(-0.01 * 50 * entropy, rel=1e-5)
    (method(x).var() + method.penalty()).backward()
    assert method.logit.grad.item() > 0  # the noise costs more than its entropy earns: the rate falls
    method.zero_grad()
    method.penalty().backward()
    assert method.logit.grad.item() < 0  # left alone the entropy pulls the rate up to 1/2


@pytest.mark.parametrize("curve", ["linear", "exponential", "cosine", "validation"])
def test_dynamic_dropout_moves(curve):
    method = dropout.create("dynamic", curve=curve, start=0.4, end=0.1)
    rates = dropout.Rates(method, total=10)
    seen = []
    for update in range(11):
        rates.step(update)
        seen.append(method.probability())
        rates.observe(10.0 - update)
    assert seen[0] == pytest.approx(0.4)
    assert all(later <= sooner for sooner, later in pairwise(seen))
    assert seen[-1] == pytest.approx(0.1 if curve != "validation" else 0.4 * 0.9**10)


class Shifted(nn.Module):
    """A method from outside the package."""

    def __init__(self, by: float = 1.0, width: int | None = None, rate: dropout.rates.RateLike = 0.1):
        super().__init__()
        self.by, self.width, self.rate = by, width, dropout.Rate(rate)

    def forward(self, x, source=None):
        return x + self.by * self.rate.now * source.sum() if self.training else x


def test_a_method_from_outside_is_one_line():
    dropout.register("shifted", Shifted)
    try:
        assert "shifted" in dropout.names()
        net = nn.ModuleDict({"site": dropout.Site("here", width=5)})
        dropout.install(net, {"here": {"method": "shifted", "by": 2.0, "rate": {"schedule": "linear", "start": 0.5}}})
        assert net["site"].method.width == 5
        rates = dropout.Rates(net, total=10)
        rates.step(5)
        assert rates.values() == {"here": 0.25}
        assert net["site"](torch.zeros(2), source=torch.ones(3)).tolist() == [1.5, 1.5]
        dropout.register("shifted", Shifted)  # again is no harm
        with pytest.raises(TodmError, match="'standard' exists already"):
            dropout.register("standard", Shifted)
    finally:
        dropout.registry._METHODS.pop("shifted")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nothing", {}, "unknown dropout 'nothing'; there are adaptive_bernoulli"),
        ("standard", {"p": 0.1}, "no argument 'p'; it has rate, shared_axis"),
        ("standout_learnt", {"width": 3}, "source_width.*its arguments are width, source_width, beta"),
        ("dynamic", {"curve": "steep"}, "curve must be linear, exponential, cosine or validation"),
        ("drop_block", {"size": 0}, "must be positive, got 0"),
        ("concrete", {"width": 3, "rate": 0.0}, "between 0 and 1, got 0.0"),
        ("learnt_mixture", {"width": 3, "weight": 1.0}, "between 0 and 1, got 1.0"),
        ("gaussian", {"rate": 1.0}, r"must be in \[0, 1\), got 1.0"),
    ],
)
def test_what_cannot_be_created_is_one_clear_line(name, arguments, message):
    with pytest.raises(TodmError, match=message) as raised:
        dropout.create(name, **arguments)
    assert "\n" not in str(raised.value)
