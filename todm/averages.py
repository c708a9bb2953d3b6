"""Averages of the weights over training, and which of them is kept.

A running average forgets at a set rate (Polyak averaging with decay); the window average counts every update of the
last part of training alike (Izmailov et al., "Averaging weights leads to wider optima", UAI 2018). Which is better, or
whether the last weights are, depends on how far the learning rate has fallen: the dev set decides.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def running_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that each `update_parameters` moves by (1 - decay) towards it, buffers included."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def window_average(model: nn.Module) -> AveragedModel:
    """A copy that is the mean of the weights at every `update_parameters`; buffers of integers are the last."""
    return AveragedModel(model, multi_avg_fn=_mean, use_buffers=True)


@torch.no_grad()
def _mean(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
    for average, value in zip(averages, values, strict=True):
        if average.is_floating_point():
            average.lerp_(value.to(average.dtype), 1 / (float(count) + 1))
        else:
            average.copy_(value)


def keep_best(into: nn.Module, candidates: dict[str, nn.Module], error: Callable[[nn.Module], float]) -> str:
    """Copy the candidate of the least error into `into`, one of them or not; the first one of equals. Its name."""
    errors = {name: error(model) for name, model in candidates.items()}
    best = min(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
    into.load_state_dict(candidates[best].state_dict())
    return best
