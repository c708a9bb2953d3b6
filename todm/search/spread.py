"""Which architectures to look at first: a ladder from smallest to largest, a spread over the space."""

import json
import random

import numpy as np

from todm.space import Arch, SearchSpace


def arch_key(arch: Arch) -> str:
    """An architecture as text, the same for the same choices in any order."""
    return json.dumps(arch, sort_keys=True)


def ladder(space: SearchSpace, count: int) -> list[Arch]:
    """At most `count` (>= 2) different architectures: smallest, largest, then evenly spaced between."""
    rungs = []
    for share in (0.0, 1.0, *(i / (count - 1) for i in range(1, count - 1))):
        arch = {name: options[round(share * (len(options) - 1))] for name, options in space.choices.items()}
        rungs.append(space.canonical(arch))
    return list({arch_key(arch): arch for arch in rungs}.values())


def spread(space: SearchSpace, count: int, seed: int = 0) -> list[Arch]:
    """At most `count` (>= 2) different architectures: smallest, largest, then each farthest from all before.

    Chosen by their encodings among a ladder and 256 random ones; the same for the same seed.
    """
    rng = random.Random(seed)
    drawn = [space.canonical(space.sample(rng)) for _ in range(256)]
    archs = list({arch_key(arch): arch for arch in [*ladder(space, 16), *drawn]}.values())
    points = np.array([space.encode(arch) for arch in archs])
    chosen = list(range(min(2, len(archs))))
    while len(chosen) < min(count, len(archs)):
        chosen.append(int(np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1).argmax()))
    return [archs[index] for index in chosen]
