import random

import pytest
import torch

from todm import SearchSpace, activate, dropout, extract
from todm.errors import TodmError
from todm.recipes.standout_mnist.pretrain import Pretraining, pretrained
from todm.recipes.standout_mnist.task import StandoutData, StandoutModel, StandoutTask

SMALL = {"train": 400, "dev": 100, "test": 100, "batch": 50}


def task(folder, cache, **model):
    data = StandoutData(folder=str(folder), **SMALL)
    return StandoutTask(data, StandoutModel(hidden=[8, 16, 32], **model), 0, cache)


def test_the_papers_network_is_the_largest():
    space = SearchSpace.of(StandoutTask.build(_bare(StandoutModel())))
    assert space.largest() == {"hidden": 1000, "depth": 2}
    net = extract(StandoutTask.build(_bare(StandoutModel())), space.largest())
    assert sum(p.numel() for p in net.parameters()) == 784 * 1000 + 1000 + 1000 * 1000 + 1000 + 1000 * 10 + 10


def _bare(model):
    """A task of which only what `build` needs is there."""
    made = StandoutTask.__new__(StandoutTask)
    made.model, made.train = model, torch.zeros(1, 784, dtype=torch.uint8)
    made.images = type("Classes", (), {"classes": 10})
    return made


@pytest.mark.parametrize("method", ["standout", "standout_learnt", "standard"])
def test_a_subnet_computes_what_the_supernet_does(small_mnist, tmp_path, method):
    made = task(small_mnist, tmp_path)
    net = made.build()
    dropout.install(net, {"hidden": {"method": method}})
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    net.eval()
    space, rng = SearchSpace.of(net), random.Random(0)
    x = torch.rand(5, 784)
    for _ in range(6):
        arch = space.sample(rng)
        activate(net, arch)
        assert torch.allclose(net(x), extract(net, arch).eval()(x), atol=1e-5)


def test_pretraining_is_where_training_starts(small_mnist, tmp_path):
    config = Pretraining(epochs=1)
    made = task(small_mnist, tmp_path, pretraining=config)
    net = made.build()
    expected = pretrained([784, 32, 32], made.train, config, 0, tmp_path)
    for layer, start in zip(net.layers, expected, strict=True):
        assert torch.equal(layer.linear.weight, start.weight)
        assert torch.equal(layer.linear.bias, start.bias)


def test_norb_needs_a_folder(tmp_path):
    with pytest.raises(TodmError, match="--data.folder"):
        StandoutTask(StandoutData(set="norb"), StandoutModel(), 0, tmp_path)
