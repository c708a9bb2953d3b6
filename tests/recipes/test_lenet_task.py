import torch

from todm import SearchSpace, activate, extract
from todm.recipes.duality_lenet.task import LenetModel, LenetTask, nonzero
from todm.recipes.mnist import MnistData


def task(folder, cache):
    data = MnistData(folder=str(folder), train=400, dev=100, test=50, batch=50)
    return LenetTask(data, LenetModel(), 0, cache)


def test_the_largest_net_is_lenet_300_100(small_mnist, tmp_path):
    net = task(small_mnist, tmp_path).build()
    plain = extract(net, SearchSpace.of(net).largest())
    assert [tuple(p.shape) for p in plain.parameters()] == [(300, 784), (300,), (100, 300), (100,), (10, 100), (10,)]


def test_zeros_are_counted_in_the_active_part_alone(small_mnist, tmp_path):
    net = task(small_mnist, tmp_path).build()
    with torch.no_grad():
        net.fc1.weight[:75] = 0
        net.fc3.weight[0] = 0
    space = SearchSpace.of(net)
    for arch, zeros in ((space.largest(), 75 * 784 + 100), (space.smallest(), 75 * 784 + 25)):
        activate(net, arch)
        total = sum(p.numel() for p in extract(net, arch).parameters() if p.dim() == 2)
        assert abs(nonzero(net) - 100 * (1 - zeros / total)) < 1e-9
        assert nonzero(extract(net, arch)) == nonzero(net)
