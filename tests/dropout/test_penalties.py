"""Penalties and their duals: golden values, both identities on grids, and gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch

from todm.dropout.duality import (
    ARD,
    MCP,
    SCAD,
    HardConcrete,
    HardThreshold,
    Log2Sum,
    LogSum,
    Lp,
    Standout,
    VarDrop,
    VarDropApprox,
)
from todm.dropout.duality.penalties import penalty_from
from todm.errors import TodmError

GOLDEN = np.load(Path(__file__).parent.parent / "data" / "penalties.npz", allow_pickle=False)
KINDS = {
    "lp0": Lp, "lp1": Lp, "logsum0": LogSum, "logsum1": LogSum, "log2sum": Log2Sum, "scad": SCAD, "mcp": MCP,
    "standout": Standout, "vardrop": VarDrop, "vardrop_approx": VarDropApprox, "hard_concrete": HardConcrete,
}  # fmt: skip
NUMERICAL = ("vardrop", "vardrop_approx", "hard_concrete")
EVERY = {name: kind(*GOLDEN[f"{name}.params"].tolist()) for name, kind in KINDS.items()} | {
    "ard": ARD(0.7), "hard_threshold": HardThreshold(0.6), "vardrop at lam 0.3": VarDrop(0.3),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_golden_values(name):
    penalty, tolerance = EVERY[name], 1e-6 if name in NUMERICAL else 1e-9
    w, eta = GOLDEN[f"{name}.w"], GOLDEN[f"{name}.eta"]
    np.testing.assert_allclose(penalty.omega(w), GOLDEN[f"{name}.omega"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(penalty.f(eta), GOLDEN[f"{name}.f"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(penalty.eta_hat(w), GOLDEN[f"{name}.eta_hat"], rtol=tolerance, atol=tolerance)
    keep = penalty.keep(w, float(GOLDEN["lambda_reg"]))
    np.testing.assert_allclose(keep, GOLDEN[f"{name}.keep"], rtol=tolerance, atol=tolerance)


def test_where_hard_concrete_is_flat():
    penalty, end = EVERY["hard_concrete"], float(GOLDEN["hard_concrete.w_saturation"])
    eta = penalty.eta_hat(np.array([end - 1e-9, end + 1e-9]))
    assert eta == pytest.approx([float(GOLDEN["hard_concrete.eta_at_saturation"]), np.inf], rel=1e-6)
    assert penalty.omega(np.array([end, 3.0])) == pytest.approx([0.5, 0.5], abs=1e-8)


@pytest.mark.parametrize("name", EVERY)
def test_the_penalty_is_the_minimum_over_eta(name):
    penalty = EVERY[name]
    w = np.concatenate([np.geomspace(1e-3, 4, 40)])
    eta = np.geomspace(1e-8, 1e12, 4001)
    bound = w[:, None] ** 2 / eta + penalty.f(eta)
    twice = 2 * penalty.omega(w)
    assert (bound >= twice[:, None] - 1e-8).all()
    hat = penalty.eta_hat(w)
    inside = np.isfinite(hat)
    assert inside.any()
    at_hat = w[inside] ** 2 / hat[inside] + penalty.f(hat[inside])
    np.testing.assert_allclose(at_hat, twice[inside], rtol=1e-8, atol=1e-8)
    # Where the penalty is flat no finite eta is best, but ever larger ones come as close as one likes.
    np.testing.assert_allclose(bound.min(1)[~inside], twice[~inside], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", EVERY)
def test_the_dual_is_the_supremum_over_w(name):
    penalty = EVERY[name]
    eta = np.geomspace(1e-2, 30, 30)
    w = np.concatenate([[0.0], np.geomspace(1e-7, 1e3, 20001)])
    bound = 2 * penalty.omega(w) - w**2 / eta[:, None]
    f = penalty.f(eta)
    if name == "hard_concrete":  # not convex in 1 / eta: the supremum is its envelope
        assert (bound <= f[:, None] + 1e-8).all()
        assert (f - bound.max(1)).max() < 0.0017
        np.testing.assert_allclose(bound.max(1)[eta < 2], f[eta < 2], atol=2e-6)
        return
    assert (bound <= f[:, None] + 1e-8).all()
    np.testing.assert_allclose(bound.max(1), f, rtol=1e-6, atol=2e-6)  # the grid of w is finite


@pytest.mark.parametrize("name", EVERY)
def test_tensors_are_differentiable_and_keep_their_type(name):
    penalty = EVERY[name]
    w = torch.tensor([-1.3, -0.4, 0.11, 0.25, 2.7], dtype=torch.float64, requires_grad=True)
    penalty.omega(w).sum().backward()
    step = 1e-6
    slope = (penalty.omega(w.detach() + step) - penalty.omega(w.detach() - step)) / (2 * step)
    assert torch.allclose(w.grad, slope, atol=1e-6)
    eta = torch.tensor([0.07, 0.4, 1.7, 9.0], dtype=torch.float64, requires_grad=True)
    penalty.f(eta).sum().backward()
    slope = (penalty.f(eta.detach() + step) - penalty.f(eta.detach() - step)) / (2 * step)
    assert torch.allclose(eta.grad, slope, atol=1e-6)
    single = w.detach().float()
    for value in (penalty.omega(single), penalty.f(single.abs()), penalty.eta_hat(single), penalty.keep(single, 0.1)):
        assert value.dtype == torch.float32
        assert value.shape == w.shape
    assert torch.allclose(penalty.omega(single).double(), penalty.omega(w).detach(), atol=1e-5)


def test_nothing_is_not_a_number_at_the_ends():
    for name, penalty in EVERY.items():
        ends = np.array([0.0, 1e-300, 1e9])
        for value in (penalty.omega(ends), penalty.eta_hat(ends), penalty.keep(ends, 0.05)):
            assert not np.isnan(value).any(), name


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("logsum", "one of lp, log_sum, log2_sum"),
        ({"eps": 1.0}, "one of lp, log_sum"),
        ({"name": "log_sum", "epsilon": 1.0}, "epsilon.*its arguments are eps"),
        ({"name": "lp", "p": 2.5}, "0 < p < 2, got 2.5"),
    ],
)
def test_a_penalty_that_is_not_one(described, message):
    with pytest.raises(TodmError, match=message):
        penalty_from(described)
    assert penalty_from({"name": "log_sum", "eps": 0.1}) == LogSum(0.1)
    assert penalty_from("ard") == ARD()


def test_reweighted_least_squares_with_eta_hat_is_the_golden_one():
    x, y, lam = GOLDEN["duality.X"], GOLDEN["duality.y"], float(GOLDEN["duality.lambda"])
    penalty, n = LogSum(float(GOLDEN["duality.logsum_eps"])), len(y)
    w, made, objectives = np.linalg.lstsq(x, y, rcond=None)[0], [], []
    for sweep in range(21):
        if sweep in GOLDEN["duality.irls_iterations"]:
            made.append(w)
            objectives.append(((y - x @ w) ** 2).sum() / 2 + n * lam * penalty.omega(w).sum())
        root = np.diag(np.sqrt(penalty.eta_hat(w)))
        w = root @ np.linalg.solve(root @ x.T @ x @ root + n * lam * np.eye(len(w)), root @ x.T @ y)
    np.testing.assert_allclose(made, GOLDEN["duality.irls_w"][: len(made)], atol=1e-9)
    np.testing.assert_allclose(objectives, GOLDEN["duality.objective"][: len(made)], atol=1e-9)


def test_the_envelope_of_hard_concrete_is_the_golden_one():
    eta, envelope = GOLDEN["hard_concrete.eta"], GOLDEN["hard_concrete.f_envelope"]
    eta, envelope = eta[eta > 0], envelope[eta > 0]
    w = np.append(np.linspace(0, 0.6, 30_001), GOLDEN["hard_concrete.w_saturation"])  # with the kink of Omega
    supremum = (2 * EVERY["hard_concrete"].omega(w) - w**2 / eta[:, None]).max(1)
    np.testing.assert_allclose(supremum, envelope, atol=1e-6)
