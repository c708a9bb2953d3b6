"""A step of ScaledAdam beside AdamW's, on the parameters of the demo's supernet."""

from functools import partial

import torch

from bench.measure import measured
from todm.optim import ScaledAdam
from todm.speech.task import TransducerConfig
from todm.speech.transducer import Transducer

STEPS = 40
"""Steps of one measurement, a multiple of the four between updates of the scales."""
BARS = {"ScaledAdam": (1.5, None)}


def case(name: str) -> dict[str, float]:
    """Seconds of one step, clipping included; AdamW has none."""
    torch.manual_seed(0)
    config = TransducerConfig()
    params = list(Transducer(config.encoder, 12, config.joiner, config.embedding).parameters())
    for p in params:
        p.grad = 0.01 * torch.randn_like(p)
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(params, foreach=True) if name == "AdamW" else ScaledAdam(params, clipping_scale=2.0)
    )

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.step()

    row = measured(steps, repeats=10)
    return row | {key: row[key] / STEPS for key in ("seconds", "cpu_seconds")}


CASES = {"optimiser step": {name: partial(case, name) for name in ("AdamW", "ScaledAdam")}}
