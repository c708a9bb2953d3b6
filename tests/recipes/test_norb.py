import gzip
import struct

import numpy as np
import pytest
import torch

from todm.errors import TodmError
from todm.recipes.standout_mnist.norb import load_norb, read_matrix

MAGIC = {"u1": 0x1E3D4C55, "<i4": 0x1E3D4C54, "<f4": 0x1E3D4C51, "<f8": 0x1E3D4C53, "<i2": 0x1E3D4C56}


def matrix(array: np.ndarray, kind: str) -> bytes:
    """A file as the format's description words it: at least three sizes, however few dimensions."""
    sizes = [*array.shape, 1, 1][: max(3, array.ndim)]
    return struct.pack(f"<ii{len(sizes)}i", MAGIC[kind], array.ndim, *sizes) + array.astype(kind).tobytes()


@pytest.mark.parametrize("kind", MAGIC)
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (2, 2, 3, 3)])
def test_what_was_written_is_read(tmp_path, kind, shape):
    array = np.random.default_rng(0).integers(0, 100, shape)
    (tmp_path / "a.mat").write_bytes(matrix(array, kind))
    (tmp_path / "a.mat.gz").write_bytes(gzip.compress(matrix(array, kind)))
    for name in ("a.mat", "a.mat.gz"):
        found = read_matrix(tmp_path / name)
        assert found.dtype == np.dtype(kind)
        assert np.array_equal(found, array)


@pytest.fixture
def norb(tmp_path):
    """Toys of class k in both splits, whose views have the levels 10 k and 10 k + 5."""
    for split, count in (("training", 10), ("testing", 5)):
        labels = np.arange(count) % 5
        pictures = np.zeros((count, 2, 96, 96)) + 10 * labels[:, None, None, None]
        pictures[:, 1] += 5
        pictures[0, 0, :3, :3] = np.arange(9).reshape(3, 3)  # one square, whose mean is 4
        name = f"smallnorb-5x46789x9x18x6x2x96x96-{split}"
        (tmp_path / f"{name}-dat.mat.gz").write_bytes(gzip.compress(matrix(pictures, "u1")))
        (tmp_path / f"{name}-cat.mat").write_bytes(matrix(labels, "<i4"))
    return tmp_path


def test_both_views_are_shrunk(norb):
    images = load_norb(str(norb))
    assert (images.train.shape, images.test.shape, images.classes) == ((10, 2048), (5, 2048), 5)
    assert images.train_labels.tolist() == [0, 1, 2, 3, 4] * 2
    left, right = images.train.view(10, 2, 32, 32).unbind(1)
    assert left[0, 0, 0] == 4
    assert left[0].sum() == 4
    assert torch.equal(left[6], torch.full((32, 32), 10, dtype=torch.uint8))
    assert torch.equal(right[6], torch.full((32, 32), 15, dtype=torch.uint8))


def test_wrong_files_are_one_clear_line(norb):
    good = (norb / "smallnorb-5x46789x9x18x6x2x96x96-testing-cat.mat").read_bytes()
    bad = norb / "bad.mat"
    for content in (b"", b"\x89PNG\r\n\x1a\n" + good, good[:-4], good[:10], gzip.compress(good)[:20]):
        bad.write_bytes(content)
        with pytest.raises(TodmError, match=r"bad.mat is not a NORB matrix file") as caught:
            read_matrix(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(TodmError, match="not 0"):
        load_norb(str(norb / "nowhere"))
    (norb / "smallnorb-5x46789x9x18x6x2x96x96-testing-cat.mat").write_bytes(matrix(np.zeros(4), "<i4"))
    with pytest.raises(TodmError, match="testing files"):
        load_norb(str(norb))
