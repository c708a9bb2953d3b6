"""What each method needs to be built for a small layer: shared by the tests that go through all of them."""

import torch

from todm import dropout

UNITS, INPUTS = 6, 5
ON_WEIGHTS = (
    "adaptive_bernoulli", "adaptive_gaussian", "adaptive_prox", "adaptive_tikhonov", "direct_penalty", "eta_trick",
    "hard_concrete", "sparse_variational",
)  # fmt: skip
ON_IMAGES = ("drop_block",)
STANDOUT = ("standout", "standout_bias", "standout_learnt")
ARGUMENTS = {
    "adaptive_width": {"rate": 0.5, "width": UNITS},
    "annealed_mixture": {"weight": 0.3},
    "anti_curriculum": {"gamma": 0.01},
    "concrete": {"width": UNITS},
    "curriculum": {"gamma": 0.01},
    "drop_block": {"rate": 0.3, "size": 2},
    "early": {"rate": 0.5, "until": 1000},
    "late": {"start": 1},
    "learnt_mixture": {"width": UNITS},
    "nested": {"rate": 0.3},
    "standout_bias": {"width": UNITS},
    "standout_learnt": {"width": UNITS, "source_width": INPUTS},
    "switch": {"step": 1},
}
ON_ACTIVATIONS = tuple(name for name in dropout.names() if name not in ON_WEIGHTS)


def made(name: str) -> torch.nn.Module:
    return dropout.create(name, **ARGUMENTS.get(name, {}))
