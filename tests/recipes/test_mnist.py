import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import checksum, write_mnist
from torch import nn

from todm.errors import TodmError
from todm.recipes import mnist
from todm.recipes.mnist import MnistData, MnistTask, load_mnist, moved

SMALL = {"train": 500, "dev": 100, "test": 150, "batch": 64}


class Linear(MnistTask):
    def build(self):
        return nn.Linear(784, 10)


def task(folder, seed=0, **options):
    data = MnistData(folder=str(folder), **SMALL | options)
    return Linear(data, load_mnist(data.folder, Path("nowhere")), seed)


def test_who_packed_the_file_makes_no_difference(small_mnist, tmp_path):
    ours = write_mnist(tmp_path / "other" / "mnist.npz", ("{}_images", "{}_labels"))
    first, second = (load_mnist(str(folder), tmp_path) for folder in (small_mnist, tmp_path / "other"))
    for name in ("train", "train_labels", "test", "test_labels"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert checksum(ours, ("{}_images", "{}_labels")) == mnist.CHECKSUM
    columns = first.test.view(-1, 28, 28).float().mean(1).unfold(1, 4, 2).mean(-1)[:, :10]
    assert torch.equal(columns.argmax(1), first.test_labels)


def test_splits_do_not_overlap_and_hold_every_class(small_mnist):
    made = task(small_mnist)
    parts = [made.train, made.pictures["dev"], made.pictures["test"]]
    assert [len(part) for part in parts] == [500, 100, 150]
    seen = [{row.numpy().tobytes() for row in part} for part in parts]
    assert len(set.union(*seen)) == 750
    assert all(len(labels.unique()) == 10 for labels in (made.train_labels, *made.labels.values()))


def test_a_batch_is_a_function_of_seed_and_index(small_mnist):
    made = task(small_mnist)
    stream = made.train_batches(0)
    batches = [next(stream) for _ in range(15)]  # two epochs of seven batches, and one
    for index in (0, 6, 7, 12):
        again = next(task(small_mnist).train_batches(index))
        assert all(torch.equal(a, b) for a, b in zip(batches[index], again, strict=True))
    epoch = torch.cat([pictures for pictures, _ in batches[:7]])
    assert len(epoch.unique(dim=0)) == 7 * 64
    assert not torch.equal(batches[0][0], batches[7][0])
    assert not torch.equal(batches[0][0], next(task(small_mnist, seed=1).train_batches(0))[0])
    assert batches[0][0].max() <= 1


def test_pictures_move_within_their_frame(small_mnist):
    pictures = torch.arange(1, 17, dtype=torch.uint8).repeat(200, 1)
    found = moved(pictures, 1, torch.Generator().manual_seed(0)).view(-1, 4, 4)
    assert len(found.unique(dim=0)) == 9
    grid = torch.arange(1, 17, dtype=torch.uint8).view(4, 4)
    expected = torch.zeros(4, 4, dtype=torch.uint8)
    expected[1:, :3] = grid[:3, 1:]  # one down, one to the left
    assert (found == expected).all((1, 2)).any()
    made = task(small_mnist, shift=2)
    stream = made.train_batches(0)
    first, second = (next(stream)[0] for _ in range(2))
    assert torch.equal(next(made.train_batches(1))[0], second)
    assert not torch.equal(first, next(task(small_mnist).train_batches(0))[0])


def test_error_and_loss_are_those_of_the_outputs(small_mnist):
    made, model = task(small_mnist), nn.Linear(784, 10)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([0.0] * 3 + [4.0] + [0.0] * 6))
    share = (made.labels["test"] == 3).double().mean().item()
    assert made.evaluate(model, "test") == {"error": pytest.approx(100 * (1 - share))}
    pictures, labels = next(made.train_batches(0))
    threes = (labels == 3).double().mean().item()
    expected = np.log(np.exp(4) + 9) - 4 * threes
    output = made.loss(model, (pictures, labels))
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)
    assert output.weight.sum().item() == pytest.approx(1)


def test_wrong_data_are_one_clear_line(small_mnist, tmp_path, monkeypatch):
    write_mnist(tmp_path / "changed" / "mnist.npz", ("x_{}", "y_{}"), seed=1)
    np.savez(tmp_path / "mnist.npz", pictures=np.zeros(3))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "mnist.npz").write_text("not an archive")
    for folder, says in (
        (tmp_path / "changed", "pinned checksum"), (tmp_path, "no array"), (tmp_path / "text", "--data.folder"),
        (tmp_path / "nowhere", "No such file"),
    ):  # fmt: skip
        with pytest.raises(TodmError, match=says) as caught:
            load_mnist(str(folder), tmp_path)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(mnist, "HOME", (tmp_path / "changed" / "mnist.npz").as_uri())
    with pytest.raises(TodmError, match="could not be downloaded"):
        load_mnist(None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_it_is_downloaded_once(small_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "HOME", (small_mnist / "mnist.npz").as_uri())
    first = load_mnist(None, tmp_path / "cache")
    monkeypatch.setattr(mnist, "HOME", "http://localhost:1/")
    mnist._read.cache_clear()
    assert torch.equal(load_mnist(None, tmp_path / "cache").train, first.train)


def test_the_pinned_checksum_is_that_of_the_real_pictures(tmp_path):
    folder = Path(os.environ.get("TODM_DATA", "nowhere"), "mnist")
    if not folder.is_dir():
        pytest.skip("$TODM_DATA/mnist is not there")
    images = load_mnist(str(folder), tmp_path)
    # As every tutorial prints them for the original files.
    assert images.train.double().mean().item() == pytest.approx(33.318421449829934, rel=1e-14)
    assert images.test.double().mean().item() == pytest.approx(33.791224489795916, rel=1e-14)
    assert images.train_labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
