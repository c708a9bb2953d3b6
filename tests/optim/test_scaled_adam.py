"""ScaledAdam against the golden trajectories, and what a long training run asks of it."""

import io
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from todm.errors import TodmError
from todm.optim import ScaledAdam

GOLDEN = dict(np.load(Path(__file__).parents[1] / "data" / "scaled_adam.npz", allow_pickle=False))
CASES = [str(name) for name in GOLDEN["case_names"] if not name.startswith(("nan", "inf"))]
SNAPSHOTS = GOLDEN["snapshot_steps"].tolist()


def names_of(case: str) -> list[str]:
    return ["big", "zero", "tiny", "s", "one"] if case == "limits" else GOLDEN["param_names"].tolist()


class Run:
    """A golden case: its parameters, its optimiser, and its prescribed gradients."""

    def __init__(self, case: str, dtype: torch.dtype) -> None:
        self.case, self.dtype, self.names = case, dtype, names_of(case)
        self.prefix = "limits." if case == "limits" else ""
        self.params = [self.tensor(GOLDEN[f"{self.prefix}init.{name}"]).requires_grad_() for name in self.names]
        self.optimizer = self.new_optimizer()

    def tensor(self, value: np.ndarray) -> Tensor:
        return torch.tensor(value).to(self.dtype)

    def new_optimizer(self) -> ScaledAdam:
        scale = float(GOLDEN[f"{self.case}.clipping_scale"])
        period = int(GOLDEN[f"{self.case}.clipping_update_period"])
        clipping_scale = None if math.isnan(scale) else scale
        return ScaledAdam(self.params, self.lr(0), clipping_scale, clipping_update_period=period)

    def lr(self, step: int) -> float:
        lr = float(GOLDEN[f"{self.case}.lr"])
        return float(GOLDEN["lr_sequence.lrs"][step]) if math.isnan(lr) else lr

    def step(self, step: int) -> None:
        for row, (name, p) in enumerate(zip(self.names, self.params, strict=True)):
            missing = self.case == "missing_grad" and not GOLDEN["missing_grad.mask"][row, step]
            p.grad = None if missing else self.tensor(GOLDEN[f"{self.prefix}grad.{name}"][step])
        self.optimizer.param_groups[0]["lr"] = self.lr(step)
        self.optimizer.step()


@pytest.mark.parametrize("case", CASES)
def test_float64_follows_the_golden_trajectory_and_ends_in_its_state(case: str) -> None:
    run = Run(case, torch.float64)
    group = run.optimizer.param_groups[0]
    for step in range(60):
        run.step(step)
        if f"{case}.threshold" in GOLDEN and step > 0:
            threshold = math.nan if group["threshold"] is None else group["threshold"]
            np.testing.assert_allclose(group["norms"][-1], GOLDEN[f"{case}.grad_norm"][step], rtol=1e-12)
            np.testing.assert_allclose(threshold, GOLDEN[f"{case}.threshold"][step], rtol=1e-12)
        if step + 1 in SNAPSHOTS:
            for name, p in zip(run.names, run.params, strict=True):
                expected = GOLDEN[f"{case}.f64.{name}"][SNAPSHOTS.index(step + 1)]
                np.testing.assert_allclose(p.detach(), expected, rtol=0, atol=1e-12)
    for name, p in zip(run.names, run.params, strict=True):
        state = run.optimizer.state[p]
        for key in {"delta", "exp_avg_sq", "param_rms", "scale_exp_avg_sq"} & state.keys():
            assert state[key].dtype == torch.float64
            np.testing.assert_allclose(state[key], GOLDEN[f"{case}.f64.final.{name}.{key}"], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_float32_stays_within_1e_5_of_the_rms(case: str) -> None:
    run = Run(case, torch.float32)
    for step in range(60):
        run.step(step)
        if step + 1 in SNAPSHOTS:
            for name, p in zip(run.names, run.params, strict=True):
                expected = GOLDEN[f"{case}.f64.{name}"][SNAPSHOTS.index(step + 1)]
                tolerance = 1e-5 * np.sqrt(np.mean(expected**2))
                np.testing.assert_allclose(p.detach().double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("stop", [3, 10, 23])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_resumed_run_is_bit_identical(stop: int, dtype: torch.dtype) -> None:
    whole, broken = Run("lr045_clip2", dtype), Run("lr045_clip2", dtype)
    for step in range(stop):
        whole.step(step)
        broken.step(step)
    file = io.BytesIO()
    torch.save(broken.optimizer.state_dict(), file)
    file.seek(0)
    broken.params = [p.detach().clone().requires_grad_() for p in broken.params]
    broken.optimizer = broken.new_optimizer()
    broken.optimizer.load_state_dict(torch.load(file, weights_only=True))
    for step in range(stop, 45):
        whole.step(step)
        broken.step(step)
    for p, q in zip(whole.params, broken.params, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("case", ["lr045_noclip", "lr045_clip2"])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(case: str, bad: float) -> None:
    run, undisturbed = Run(case, torch.float32), Run(case, torch.float32)
    for step in range(40):
        if step in (0, 25):
            for p in run.params:
                p.grad = torch.ones_like(p)
            run.params[0].grad.view(-1)[2] = bad  # type: ignore[union-attr]
            run.optimizer.step()
        run.step(step)
        undisturbed.step(step)
    assert run.optimizer.skipped == 2
    assert undisturbed.optimizer.skipped == 0
    for p, q in zip(run.params, undisturbed.params, strict=True):
        assert torch.equal(p, q)
    run.optimizer.load_state_dict(run.optimizer.state_dict())
    assert run.optimizer.skipped == 2


def test_groups_keep_their_own_rate_and_clipping() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(4, 3), torch.randn(2, 30, 4, 3).double()
    together = [start.double().requires_grad_() for _ in range(2)]
    alone = [start.double().requires_grad_() for _ in range(2)]
    settings = [{"lr": 0.02, "clipping_scale": 0.5}, {"lr": 0.05, "clipping_scale": None}]
    joint = ScaledAdam([{"params": [p], **s} for p, s in zip(together, settings, strict=True)])
    single = [ScaledAdam([p], **s) for p, s in zip(alone, settings, strict=True)]  # type: ignore[arg-type]
    for step in range(30):
        for p, q, grad in zip(together, alone, gradients[:, step], strict=True):
            p.grad, q.grad = grad.clone(), grad.clone()
        joint.step()
        for optimizer in single:
            optimizer.step()
    for p, q, grad in zip(together, alone, gradients[:, -1], strict=True):
        assert torch.equal(p, q)
        assert torch.equal(p.grad, grad), "the gradients are not the optimiser's to change"  # type: ignore[arg-type]


def test_stacking_and_cutting_stacks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def final(elements: int) -> list[Tensor]:
        monkeypatch.setattr("todm.optim.scaled_adam._STACK_ELEMENTS", elements)
        run = Run("lr045_clip2", torch.float64)
        for step in range(30):
            run.step(step)
        return run.params

    for p, q in zip(final(1), final(10**6), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-13)


def test_a_layout_that_is_not_contiguous_is_updated_in_place() -> None:
    torch.manual_seed(0)
    wide, plain = torch.randn(5, 3).T.requires_grad_(), torch.zeros(3, 5).requires_grad_()
    with torch.no_grad():
        plain.copy_(wide)
    grad = torch.randn(3, 5)
    for p in (wide, plain):
        p.grad = grad.clone()
        ScaledAdam([p]).step()
    assert not wide.is_contiguous()
    assert torch.equal(wide, plain)


def test_the_closure_is_run_with_gradients() -> None:
    p = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = ScaledAdam([p])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(200)]
    assert losses[0] == 5.0
    assert losses[-1] < 0.5


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"clipping_scale": -2.0}, {"size_update_period": 0}]
)
def test_arguments_out_of_range_are_named(wrong: dict) -> None:
    with pytest.raises(TodmError, match=next(iter(wrong))):
        ScaledAdam([torch.zeros(2, requires_grad=True)], **wrong)


def test_a_step_costs_at_most_one_and_a_half_of_adamw() -> None:
    shapes = [(64, 64), (64,), (64,), (64,), (128, 64), (128,), (64, 128), (64,), (4, 8), ()] * 10
    torch.manual_seed(0)
    optimizers: list[torch.optim.Optimizer] = []
    for make in (
        lambda ps: torch.optim.AdamW(ps, foreach=True),
        lambda ps: ScaledAdam(ps, clipping_scale=2.0),
    ):
        params = [torch.randn(shape).requires_grad_() for shape in shapes]
        for p in params:
            p.grad = torch.randn_like(p)
        optimizers.append(make(params))
    seconds: list[list[float]] = [[], []]
    for _ in range(80):
        for optimizer, times in zip(optimizers, seconds, strict=True):
            start = time.thread_time()
            optimizer.step()
            times.append(time.thread_time() - start)
    # Every fourth step updates the scales too: the median of means of four, so that these are counted.
    adamw, scaled = (np.median(np.reshape(times, (20, 4)).mean(1)) for times in seconds)
    assert scaled <= 1.5 * adamw
