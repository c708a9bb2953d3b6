"""Adaptive dropout is inverted dropout at a rate that follows the width."""

import pytest
import torch

from todm import Choice
from todm.dropout.adaptive_width import AdaptiveDropout, adaptive_rate


@pytest.fixture
def width() -> Choice:
    return Choice("hidden", (16, 32, 64))


def test_the_rate_is_proportional_to_the_width(width):
    for active, rate in ((64, 0.4), (32, 0.2), (16, 0.1)):
        width.active = active
        assert [adaptive_rate(0.4, width), adaptive_rate(0.4, width * 3)] == pytest.approx([rate, rate])
    assert adaptive_rate(0.4, 48) == pytest.approx(0.4)


@pytest.mark.parametrize("active", [16, 64])
def test_as_many_are_dropped_as_the_rate_says_and_the_mean_stays(width, active):
    torch.manual_seed(0)
    width.active = active
    y = AdaptiveDropout(0.4, width)(torch.full((400, 1000), 3.0))
    rate = 0.4 * active / 64
    assert (y == 0).float().mean() == pytest.approx(rate, abs=0.003)
    assert y.unique().tolist() == pytest.approx([0, 3 / (1 - rate)])
    assert y.mean() == pytest.approx(3.0, abs=0.01)
    assert (y != AdaptiveDropout(0.4, width)(torch.full((400, 1000), 3.0))).any()  # a mask a call


def test_nothing_happens_in_evaluation_or_at_rate_zero(width):
    x = torch.randn(8, 64)
    assert AdaptiveDropout(0.9, width).eval()(x) is x
    assert AdaptiveDropout(0.0, width)(x) is x


def test_one_mask_along_the_shared_axis(width):
    x = torch.ones(50, 7, 64)
    kept = AdaptiveDropout(0.5, width, shared_axis=1)(x) > 0
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert kept[:, 0].float().mean() == pytest.approx(0.5, abs=0.05)
    assert (kept[0] != kept[1]).any()
    alone = AdaptiveDropout(0.5, width)(x) > 0
    assert (alone != alone[:, :1]).any()


def test_gradients_pass_where_values_do(width):
    x = torch.ones(1000, requires_grad=True)
    y = AdaptiveDropout(0.5, width)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_half_precision_stays(width):
    assert AdaptiveDropout(0.5, width)(torch.ones(8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_plain_has_the_rate_of_the_active_width(width):
    width.active = 16
    plain = AdaptiveDropout(0.4, width, shared_axis=1).plain()
    width.active = 64
    assert (plain.rate.now, plain.width, plain.shared_axis) == (pytest.approx(0.1), 16, 1)
    assert plain.probability() == pytest.approx(0.1)
    assert "rate=0.1" in repr(plain)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_is_below_one(rate):
    with pytest.raises(ValueError, match=r"dropout rate must be in \[0, 1\)"):
        AdaptiveDropout(rate, 8)
