"""A picture grid to look at: what trained nets make of test pictures.

    python -m todm.recipes.annealed_sr.grid RUN

RUN is a run folder, or the folder of a comparison, of which it shows seed 0 of every row. Writes RUN/grid.png: a line
for each picture and degradation; from left to right the original, its small form by cubic enlargement, and every net's
answer, with its PSNR. It stays in the run folder: the licence of the pictures does not say that they may be passed on.
"""

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from todm.errors import TodmError, script
from todm.files import atomic_write
from todm.recipes.annealed_sr.degrade import SCALE, UNSEEN
from todm.recipes.annealed_sr.psnr import PEAK, psnr
from todm.run import Run
from todm.space import activate
from todm.trained import Trained

CROPS = {"Set5/img_003": (80, 60), "Set14/img_014": (150, 250)}
"""Pictures shown, and the top left corner of what is shown of them."""
SHOWN = ("noise", "blur_jpeg", "blur_noise_jpeg")
SIDE, GAP, LINE = 88, 4, 14
"""Of a crop, between crops, and of a line of text, in pixels."""


def nets(folder: Path) -> dict[str, Trained]:
    """The trained runs of a folder by the name of their row.

    Raises:
        TodmError: there is none.
    """
    if (folder / "recipe.yaml").is_file():
        return {folder.name: Trained(Run.open(folder))}
    found = {path.parent.parent.name: path.parent for path in sorted(folder.glob("*/seed0/recipe.yaml"))}
    if not found:
        raise TodmError(f"{folder} holds no run and no comparison; make one with `todm compare annealed_sr`")
    return {name: Trained(Run.open(path)) for name, path in found.items()}


def draw(folder: Path) -> bytes:
    """The grid as a PNG file.

    Raises:
        TodmError: the folder holds no trained nets, or its data lack a picture shown.
    """
    families = nets(folder)
    task = next(iter(families.values())).task
    columns = ["original", "cubic", *families]
    left = 8 * max(map(len, SHOWN))
    size = (left + len(columns) * (SIDE + GAP), LINE + len(CROPS) * len(SHOWN) * (SIDE + LINE + GAP))
    canvas = Image.new("L", size, 255)
    pen = ImageDraw.Draw(canvas)
    for number, title in enumerate(columns):
        pen.text((left + number * (SIDE + GAP), 0), title, 0)
    top = LINE
    for name, wanted in CROPS.items():
        large = task.pictures.sets[name.partition("/")[0]].get(name)
        if large is None:
            raise TodmError(f"the pictures lack {name}, which the grid shows")
        row, column = (min(at, side - SIDE) for at, side in zip(wanted, large.shape, strict=True))
        for kind in SHOWN:
            small = UNSEEN[kind](large, np.random.default_rng(0))
            cubic = Image.fromarray(small).resize(large.shape[::-1], Image.Resampling.BICUBIC)
            answers = [large, np.asarray(cubic), *(_answer(family, small) for family in families.values())]
            pen.text((0, top), kind.replace("_", "\n"), 0)
            for number, answer in enumerate(answers):
                crop = answer[row : row + SIDE, column : column + SIDE]
                corner = (left + number * (SIDE + GAP), top)
                canvas.paste(Image.fromarray(crop), corner)
                if number:
                    pen.text((corner[0], top + SIDE), f"{psnr(large, answer, SCALE):.2f} dB", 0)
            top += SIDE + LINE + GAP
    buffer = BytesIO()
    canvas.save(buffer, "png", optimize=True)
    return buffer.getvalue()


@torch.inference_mode()
def _answer(trained: Trained, small: np.ndarray) -> np.ndarray:
    """What the trained net, or the largest of a family, makes of (height, width) uint8."""
    activate(trained.supernet, trained.space.named(trained.recipe.training.arch or "largest"))
    large = trained.supernet(torch.from_numpy(small.astype(np.float32) / np.float32(PEAK))[None, None])
    return np.rint(PEAK * large[0, 0].numpy()).clip(0, PEAK).astype(np.uint8)


@script
def main(arguments: Sequence[str]) -> None:
    """Draw the grid of the folder named on the command line into it."""
    if len(arguments) != 1:
        raise TodmError("type: python -m todm.recipes.annealed_sr.grid RUN")
    print(atomic_write(Path(arguments[0], "grid.png"), draw(Path(arguments[0]))))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
