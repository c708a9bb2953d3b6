"""ScaledAdam (Yao et al., "Zipformer", ICLR 2024, section 3.4; numbers as in icefall).

Adam whose step is proportional to a tensor's root mean square (rms), and which learns that scale by itself.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from todm.errors import TodmError

# Steps that set a first threshold, from the few norms seen so far, if clipping_update_period is longer.
_EARLY_THRESHOLDS = (10, 20, 40)
# Elements of a stack at most: what a step computes on the way then stays in a core's cache.
_STACK_ELEMENTS = 2**17


class _Stack:
    """Parameters of one shape, dtype and device: rows of one matrix (tensors, elements), updated together.

    Their state tensors are rows of stacked ones too, so `Optimizer.state` sees every parameter's own.
    """

    def __init__(self, params: list[Tensor], states: dict[Tensor, Any], period: int) -> None:
        self.params, self.is_scalar = params, params[0].numel() == 1
        for p in params:
            if not states[p]:
                states[p] = {"delta": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                if not self.is_scalar:
                    rms = p.square().mean().sqrt()
                    states[p] |= {"param_rms": rms, "scale_exp_avg_sq": torch.zeros_like(rms)}
                    states[p] |= {"scale_grads": rms.new_zeros(period)}
        self.state = {key: torch.stack([states[p][key] for p in params]) for key in states[params[0]]}
        for row, p in enumerate(params):
            states[p] = {key: value[row] for key, value in self.state.items()}

    def matrix(self, tensors: list[Tensor]) -> Tensor:
        """(tensors, elements); a single contiguous tensor is not copied."""
        return tensors[0].reshape(1, -1) if len(tensors) == 1 else torch.stack(tensors).view(len(tensors), -1)

    def grads(self) -> Tensor:
        """(tensors, elements); a missing gradient counts as zero, it does not stop momentum and decay."""
        return self.matrix([torch.zeros_like(p) if (grad := p.grad) is None else grad for p in self.params])


class ScaledAdam(torch.optim.Optimizer):
    """ScaledAdam, with all tensors of one shape updated at once.

    A step whose gradient norm is not finite changes nothing and is counted in `skipped`. A tensor of zeros
    has the scale `param_min_rms` and hardly moves: initialise with small values instead.

    Args:
        params: parameters or parameter groups, as for any torch optimiser.
        lr: rate relative to each tensor's rms.
        clipping_scale: gradients are scaled down to this multiple of the median norm of the last
            `clipping_update_period` steps, in which each tensor's counts times its rms; None: no clipping.
        betas: decay of momentum and of the second moment.
        scalar_lr_scale: factor on `lr` for one-element tensors and for the scales.
        param_min_rms, param_max_rms: a scale is not learnt below the first, nor beyond the second.
        scalar_max: largest magnitude of a one-element tensor.
        size_update_period: the scale is updated every so many steps.

    Raises:
        TodmError: an argument is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-2,
        clipping_scale: float | None = None,
        betas: tuple[float, float] = (0.9, 0.98),
        scalar_lr_scale: float = 0.1,
        eps: float = 1e-8,
        param_min_rms: float = 1e-5,
        param_max_rms: float = 3.0,
        scalar_max: float = 10.0,
        size_update_period: int = 4,
        clipping_update_period: int = 100,
    ) -> None:
        settings = {key: value for key, value in locals().items() if key not in ("self", "params", "__class__")}
        if lr < 0 or eps <= 0 or not all(0 <= beta < 1 for beta in betas) or (clipping_scale or 1) <= 0:
            raise TodmError(f"ScaledAdam: lr, eps, betas or clipping_scale is out of range in {settings}")
        if min(size_update_period, clipping_update_period) < 1:
            raise TodmError("ScaledAdam: size_update_period and clipping_update_period must be 1 or more")
        # What a group remembers between steps, as plain numbers that state_dict() carries with its rate.
        memory: dict[str, Any] = {"step": 0, "norms": (), "threshold": None, "skipped": 0}
        super().__init__(params, settings | memory)
        self._stacks: dict[int, list[_Stack]] = {}

    @property
    def skipped(self) -> int:
        """Steps left out so far because the gradient norm was not finite."""
        return self.param_groups[0]["skipped"]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._stacks = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update all parameters from their gradients, which are left alone; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [[(s, s.grads()) for s in self._stacks_of(index)] for index in range(len(self.param_groups))]
        norms = [_norm(group, pairs) for group, pairs in zip(self.param_groups, work, strict=True)]
        if not all(map(math.isfinite, norms)):
            for group in self.param_groups:
                group["skipped"] += 1
            return loss
        for group, norm, pairs in zip(self.param_groups, norms, work, strict=True):
            clip = _clip_factor(group, norm)
            for stack, grad in pairs:
                values = stack.matrix(stack.params)
                _move(group, stack, values, grad * clip if clip < 1 else grad)
                torch._foreach_copy_(stack.params, values.view(-1, *stack.params[0].shape).unbind())
            group["step"] += 1
        return loss

    def _stacks_of(self, index: int) -> list[_Stack]:
        if index not in self._stacks:
            group, alike = self.param_groups[index], defaultdict(list)
            for p in group["params"]:
                alike[p.shape, p.dtype, p.device].append(p)
            self._stacks[index] = [
                _Stack(params[start : start + rows], self.state, group["size_update_period"])
                for params in alike.values()
                for rows in [max(1, _STACK_ELEMENTS // max(1, params[0].numel()))]
                for start in range(0, len(params), rows)
            ]
        return self._stacks[index]


def _norm(group: dict[str, Any], pairs: list[tuple[_Stack, Tensor]]) -> float:
    """Norm of a group's gradients, each weighted by the size of the step it leads to."""
    norms = [
        torch.linalg.vector_norm(grad, dim=1)
        * (group["scalar_lr_scale"] if stack.is_scalar else stack.state["param_rms"])
        for stack, grad in pairs
    ]
    return torch.linalg.vector_norm(torch.cat(norms)).item() if norms else 0.0


def _clip_factor(group: dict[str, Any], norm: float) -> float:
    """Record the norm, renew the threshold when it is due, return the factor for this step's gradients."""
    step, period = group["step"], group["clipping_update_period"]
    if group["clipping_scale"] is None or step == 0:
        return 1.0
    norms = group["norms"] = (*group["norms"], norm)[-period:]
    early = step in _EARLY_THRESHOLDS and step < period
    if early or step % period == 0:
        median = sorted(norms)[2 * (len(norms) // 4)]
        # Early on the norms change fast and few are known.
        group["threshold"] = group["clipping_scale"] * median * (2.0 if early else 1.0)
    return 1.0 if group["threshold"] is None else min(1.0, group["threshold"] / (norm + 1e-20))


def _move(group: dict[str, Any], stack: _Stack, values: Tensor, grad: Tensor) -> None:
    """Update the rows of `values` (tensors, elements) in place."""
    (beta1, beta2), step, period = group["betas"], group["step"], group["size_update_period"]
    delta, exp_avg_sq = (stack.state[key].view_as(values) for key in ("delta", "exp_avg_sq"))
    delta.mul_(beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    correction, size = 1 - beta2 ** (step + 1), group["scalar_lr_scale"]
    if not stack.is_scalar:
        correction = correction if correction < 0.99 else 1.0
        stack.state["scale_grads"][:, step % period] = torch.linalg.vecdot(values, grad)
        if step % period == period - 1:
            rms = torch.linalg.vector_norm(values, dim=1) * values.shape[1] ** -0.5
            stack.state["param_rms"].copy_(rms)
            if step > 0:
                delta.addcmul_(values, _scale_step(group, stack.state)[:, None], value=1 - beta1)
        size = stack.state["param_rms"].clamp(min=group["param_min_rms"])[:, None]
    denominator = exp_avg_sq.sqrt().add_(correction**0.5 * group["eps"]).div_(size)
    delta.addcdiv_(grad, denominator, value=-group["lr"] * (1 - beta1) * correction**0.5)
    values.add_(delta)
    if stack.is_scalar:
        values.clamp_(-group["scalar_max"], group["scalar_max"])


def _scale_step(group: dict[str, Any], state: dict[str, Tensor]) -> Tensor:
    """Adam's step on the logarithm of each tensor's scale, (tensors,)."""
    period, rms, mean_sq = group["size_update_period"], state["param_rms"], state["scale_exp_avg_sq"]
    beta = group["betas"][1] ** period
    mean_sq.mul_(beta).add_(state["scale_grads"].square().mean(1), alpha=1 - beta)
    correction = 1 - beta ** ((group["step"] + 1) // period)
    rate = -group["lr"] * group["scalar_lr_scale"] * correction**0.5
    step = rate * state["scale_grads"].sum(1) / (mean_sq.sqrt() + group["eps"])
    step.masked_fill_(rms < group["param_min_rms"], 0.0)
    return torch.minimum(step, (group["param_max_rms"] - rms) / rms)
