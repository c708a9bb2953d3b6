"""A picture of any size through a program of one size: tiles that overlap, of which the middles are kept."""

from collections.abc import Callable

import numpy as np

from todm.recipes.annealed_sr.degrade import SCALE

TILE = 64
"""Side of a tile of the small picture, in pixels."""
MARGIN = 8
"""Pixels of a tile's rim that are left to its neighbours, which see more of what is around them."""

Upscale = Callable[[np.ndarray], np.ndarray]
"""(1, 1, height, width) float32 in 0..1 to (1, 1, 2 height, 2 width)."""


def in_tiles(upscale: Upscale, picture: np.ndarray) -> np.ndarray:
    """Run (height, width) through `upscale` in tiles of TILE x TILE; gives (2 height, 2 width)."""
    height, width = picture.shape
    step = TILE - 2 * MARGIN
    padded = np.pad(picture, [(MARGIN, -size % step + MARGIN) for size in picture.shape], mode="reflect")
    result = np.empty([SCALE * (size - 2 * MARGIN) for size in padded.shape], np.float32)
    inside = slice(SCALE * MARGIN, SCALE * (TILE - MARGIN))
    for top in range(0, height, step):
        for left in range(0, width, step):
            large = upscale(padded[None, None, top : top + TILE, left : left + TILE])
            rows, columns = (slice(SCALE * at, SCALE * (at + step)) for at in (top, left))
            result[rows, columns] = large[0, 0, inside, inside]
    return result[: SCALE * height, : SCALE * width]
