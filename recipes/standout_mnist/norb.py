"""Small NORB (LeCun, Huang, Bottou 2004): pairs of pictures of toys in five classes, in the matrix files it comes in.

The format (https://cs.nyu.edu/~ylclab/data/norb-v1.0-small), all numbers little-endian: a magic number that says the
type of the elements, the number of dimensions, their sizes (at least three, the rest of them 1), the elements.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from todm.errors import TodmError
from todm.recipes.mnist import Images

ELEMENTS = {
    0x1E3D4C51: "<f4", 0x1E3D4C53: "<f8", 0x1E3D4C54: "<i4", 0x1E3D4C55: "u1", 0x1E3D4C56: "<i2",
}  # fmt: skip
"""Type of the elements by magic number."""
SHRINK = 3
"""Side of the squares of pixels that become one: 96 x 96 -> 32 x 32."""
CHUNK = 1000
"""Pictures shrunk at once."""


def read_matrix(path: Path | str) -> np.ndarray:
    """The array in a matrix file, packed with gzip or not.

    Raises:
        TodmError: it cannot be read, or is not such a file.
    """
    try:
        content = Path(path).read_bytes()
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        magic, dimensions = struct.unpack_from("<2i", content)
        sizes = struct.unpack_from(f"<{max(dimensions, 3)}i", content, 8)[:dimensions]
        if magic not in ELEMENTS or dimensions < 1 or min(sizes) < 0:
            raise ValueError(f"its first bytes are {content[:8].hex(' ')}")
        start = 8 + 4 * max(dimensions, 3)
        return np.frombuffer(content, ELEMENTS[magic], math.prod(sizes), start).reshape(sizes)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise TodmError(f"{path} is not a NORB matrix file ({error}); download it again") from error


def load_norb(folder: str) -> Images:
    """Both splits as (pictures, 2 x 32 x 32) vectors: the two views of a toy, averaged over squares of 3 x 3 pixels.

    Args:
        folder: Holds the files `smallnorb-*-{training,testing}-{dat,cat}.mat`, packed with gzip or not.

    Raises:
        TodmError: a file is missing or damaged.
    """
    parts: list[Tensor] = []
    for split in ("training", "testing"):
        pictures = torch.from_numpy(read_matrix(_find(folder, split, "dat")).copy())
        labels = torch.from_numpy(read_matrix(_find(folder, split, "cat")).astype(np.int64))
        if pictures.dim() != 4 or pictures.dtype != torch.uint8 or labels.shape != pictures.shape[:1]:
            raise TodmError(f"the {split} files in {folder} are not NORB's: pictures {tuple(pictures.shape)}")
        shrunk = [avg_pool2d(chunk.float(), SHRINK).round().byte().flatten(1) for chunk in pictures.split(CHUNK)]
        parts += [torch.cat(shrunk), labels]
    source, licence = f"small NORB from {folder}", "research use (NYU)"
    train, train_labels, test, test_labels = parts
    return Images(train, train_labels, test, test_labels, int(train_labels.max()) + 1, source, licence)


def _find(folder: str, split: str, kind: str) -> Path:
    found = sorted(Path(folder).glob(f"*{split}*-{kind}.mat*"))
    if len(found) != 1:
        raise TodmError(f"{folder} must hold one file *{split}*-{kind}.mat or .mat.gz of small NORB, not {len(found)}")
    return found[0]
