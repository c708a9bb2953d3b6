import torch

from todm import SearchSpace, activate, dropout, extract
from todm.program import eager
from todm.recipes.duality_lenet.task import LenetModel, LenetTask, nonzero
from todm.recipes.mnist import MnistData

LAYERS = ("fc1", "fc2", "fc3")


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


def test_what_is_closed_is_zero_in_eval_in_the_subnet_and_in_the_program(small_mnist, tmp_path):
    made = task(small_mnist, tmp_path)
    net = made.build()
    method = {"method": "adaptive_prox", "penalty": {"name": "log_sum", "eps": 0.01}, "lam": 1e-3}
    dropout.install(net, {f"weights:{layer}": method for layer in LAYERS})
    # Closed: keep = eta / (eta + lam) < 1/20 with eta = w (w + eps), that is w (w + 0.01) < lam / 19.
    edge = (-0.01 + (1e-4 + 4e-3 / 19) ** 0.5) / 2
    with torch.no_grad():
        net.fc2.parametrizations.weight.original.fill_(1.01 * edge)
        net.fc2.parametrizations.weight.original[:50] = 0.99 * edge
    space = SearchSpace.of(net)
    activate(net.eval(), space.largest())
    assert torch.equal(net.fc2.weight.count_nonzero(1), torch.tensor([0] * 50 + [300] * 50))
    subnet = extract(net, space.largest()).eval()
    assert type(subnet.fc2) is torch.nn.Linear
    program = made.program(subnet)
    score, direct = made.score(program, eager(program), "test"), made.evaluate(net, "test")
    assert score.metrics == direct
    assert 0 < direct["nonzero"] < 100
    assert len(score.outputs) == 50
