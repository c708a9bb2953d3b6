"""The pictures: T91 to train on, Set5 and Set14 to test on, as luminance.

A folder given, `$TODM_DATA/sr`, what was downloaded before, else a download of pinned files. The sets have no explicit
licence: they are used, never passed on.
"""

import hashlib
import os
import sys
import urllib.request
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from todm.errors import TodmError
from todm.files import atomic_write

T91_HOME = "https://raw.githubusercontent.com/titu1994/Image-Super-Resolution/dd5149b4632f35a4148a97c3aa77c6fa79d9d2d9"
SETS_HOME = "https://raw.githubusercontent.com/jbhuang0604/SelfExSR/8f6dd8c1d20cb7e8792a7177b4f6fd677633f598"
T91 = [f"t{number}" for number in range(1, 67) if number != 41] + [f"tt{n}" for n in range(1, 28) if n != 11]
"""Names of the training pictures at their home."""
SETS = {"Set5": 5, "Set14": 14}
"""Test sets and their numbers of pictures."""
CHECKSUM = "500a2727560ebb0a63ce7bb649b5a1861c51c0d5baf6e31ece5472454b3cef9a"
"""SHA-256 over the names, sizes and pixels of all pictures, sorted by name: however the files are compressed."""
TIMEOUT = 10.0
"""Seconds to wait for an answer from the network."""


@dataclass(frozen=True)
class Pictures:
    """Luminance pictures by set and name: (height, width), uint8, both sides even."""

    sets: dict[str, dict[str, np.ndarray]]
    source: str
    """Where they were found, in a sentence."""
    checksum: str


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Y of ITU-R BT.601 in the range 16..235, (height, width, 3) uint8 to (height, width) uint8."""
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return np.rint(16 + rgb @ weights).astype(np.uint8)


def load_pictures(folder: Path | str | None, cache: Path) -> Pictures:
    """Find the pictures, or download them into `cache`.

    Args:
        folder: Folder that holds T91, Set5 and Set14, if it is not `$TODM_DATA/sr`.

    Raises:
        TodmError: a set is missing or cannot be read, and cannot be downloaded.
    """
    local = Path(folder) if folder else Path(os.environ.get("TODM_DATA", ""), "sr")
    downloaded = not folder and not local.is_dir()
    root = cache / "sr" if downloaded else local
    if downloaded and not (root / "complete").is_file():
        _download(root)
    colours: dict[str, np.ndarray] = {}
    for name in ("T91", *SETS):
        files = sorted((root / name).glob("*.png"))
        if not files:
            raise TodmError(f"{root} has no PNG files of {name}: it needs the folders T91, Set5 and Set14")
        colours |= {f"{name}/{path.stem}": _decode(path.read_bytes(), str(path)) for path in files}
    sets: dict[str, dict[str, np.ndarray]] = {name: {} for name in ("T91", *SETS)}
    for name, rgb in sorted(colours.items()):
        height, width = (size // 2 * 2 for size in rgb.shape[:2])
        sets[name.partition("/")[0]][name] = luminance(rgb[:height, :width])
    source = f"{len(colours)} {'downloaded' if downloaded else 'local'} pictures of T91, Set5 and Set14"
    return Pictures(sets, source, _checksum(colours))


def _decode(content: bytes, where: str) -> np.ndarray:
    """(height, width, 3), uint8."""
    try:
        with Image.open(BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:  # Pillow's errors of content are OSErrors as well
        raise TodmError(f"{where} is not a readable picture; take it out or replace it") from error


def _checksum(colours: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, rgb in sorted(colours.items()):
        digest.update(f"{name} {rgb.shape[0]} {rgb.shape[1]} ".encode())
        digest.update(rgb.tobytes())
    return digest.hexdigest()


def _download(root: Path) -> None:
    """Fetch every picture into `root` as PNG; the file `complete` says that the pixels are the pinned ones."""
    homes = {f"T91/{name}": f"{T91_HOME}/input_images/{name}.bmp" for name in T91}
    for name, count in SETS.items():
        files = [f"img_{number:03d}" for number in range(1, count + 1)]
        homes |= {f"{name}/{file}": f"{SETS_HOME}/data/{name}/image_SRF_4/{file}_SRF_4_HR.png" for file in files}
    print(f"annealed_sr: downloading {len(homes)} pictures to {root}", file=sys.stderr)
    colours: dict[str, np.ndarray] = {}
    try:
        for name, url in homes.items():
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                colours[name] = _decode(response.read(), url)
    except OSError as error:
        raise TodmError(
            f"cannot download the pictures ({error}); put T91, Set5 and Set14 into a folder and type --data FOLDER"
        ) from error
    if _checksum(colours) != CHECKSUM:
        raise TodmError(f"the pictures at {T91_HOME} and {SETS_HOME} are not the pinned ones; type --data FOLDER")
    for name, rgb in colours.items():
        buffer = BytesIO()
        Image.fromarray(rgb).save(buffer, "png")
        atomic_write(root / f"{name}.png", buffer.getvalue())
    atomic_write(root / "complete", CHECKSUM + "\n")
