import hashlib

import numpy as np
import pytest

from todm.recipes import mnist


def write_mnist(path, names, seed=0, train=600, test=200):
    """A file in MNIST's form; a picture of class k is bright in its columns from 2k to 2k + 3."""
    rng, arrays = np.random.default_rng(seed), {}
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pictures = rng.integers(0, 120, (count, 28, 28), dtype=np.uint8)
        for picture, label in zip(pictures, labels, strict=True):
            picture[:, 2 * label : 2 * label + 4] += 130
        order = rng.permutation(count)
        arrays |= {names[0].format(split): pictures[order], names[1].format(split): labels[order]}
    path.parent.mkdir(exist_ok=True, parents=True)
    np.savez(path, **arrays)
    return arrays


def checksum(arrays, names):
    """The pinned checksum as its documentation words it, by other means."""
    content = b""
    for split in ("train", "test"):
        pictures, labels = (arrays[name.format(split)] for name in names)
        rows = zip(labels, pictures, strict=True)
        content += b"".join(sorted(bytes([label]) + picture.tobytes() for label, picture in rows))
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """Folder of a small set with the classes of MNIST; nothing else is found or downloaded."""
    names = ("x_{}", "y_{}")
    arrays = write_mnist(tmp_path / "mnist" / "mnist.npz", names)
    monkeypatch.setattr(mnist, "CHECKSUM", checksum(arrays, names))
    monkeypatch.delenv("TODM_DATA", raising=False)
    mnist._read.cache_clear()
    return tmp_path / "mnist"
