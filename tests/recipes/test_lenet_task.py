import torch

from todm import SearchSpace, activate, dropout, extract
from todm.program import eager
from todm.recipes.duality_lenet.task import LenetModel, LenetTask, nonzero
from todm.recipes.mnist import MnistData

LAYERS = ("hidden.0", "hidden.1", "heads.0", "heads.1")


def task(folder, cache):
    data = MnistData(folder=str(folder), train=400, dev=100, test=50, batch=50)
    return LenetTask(data, LenetModel(), 0, cache)


def test_the_largest_net_is_lenet_300_100(small_mnist, tmp_path):
    net = task(small_mnist, tmp_path).build()
    plain = extract(net, SearchSpace.of(net).largest())
    assert [tuple(p.shape) for p in plain.parameters()] == [(300, 784), (300,), (100, 300), (100,), (10, 100), (10,)]


def test_a_net_of_one_hidden_layer_has_a_head_of_its_own(small_mnist, tmp_path):
    net = task(small_mnist, tmp_path).build()
    space = SearchSpace.of(net)
    arch = space.canonical(space.largest() | {"depth": 1})
    assert arch == {"depth": 1, "first": 300, "second": 25}
    plain = extract(net, arch)
    assert [tuple(p.shape) for p in plain.parameters()] == [(300, 784), (300,), (10, 300), (10,)]
    activate(net, arch)
    x = torch.rand(3, 784)
    assert torch.equal(net(x), plain(x))
    assert not torch.equal(net(x), extract(net, space.largest())(x))


def test_zeros_are_counted_in_the_active_part_alone(small_mnist, tmp_path):
    torch.manual_seed(0)  # one weight in 2^24 begins at exactly zero, so some seeds have one
    net = task(small_mnist, tmp_path).build()
    with torch.no_grad():
        net.get_submodule("hidden.0").weight[:75] = 0
        for head in ("heads.0", "heads.1"):
            net.get_submodule(head).weight[0] = 0
    space, made = SearchSpace.of(net), task(small_mnist, tmp_path)
    for arch, zeros in ((space.largest(), 75 * 784 + 100), (space.smallest(), 75 * 784 + 75)):
        activate(net, arch)
        subnet = extract(net, arch)
        total = sum(p.numel() for p in subnet.parameters() if p.dim() == 2)
        assert abs(nonzero(subnet) - 100 * (1 - zeros / total)) < 1e-9
        assert made.evaluate(net, "dev")["nonzero"] == made.evaluate(subnet, "dev")["nonzero"] == nonzero(subnet)


def test_what_is_closed_is_zero_in_eval_in_the_subnet_and_in_the_program(small_mnist, tmp_path):
    made = task(small_mnist, tmp_path)
    net = made.build()
    method = {"method": "adaptive_prox", "penalty": {"name": "log_sum", "eps": 0.01}, "lam": 1e-3}
    dropout.install(net, {f"weights:{layer}": method for layer in LAYERS})
    # Closed: keep = eta / (eta + lam) < 1/20 with eta = w (w + eps), that is w (w + 0.01) < lam / 19.
    edge = (-0.01 + (1e-4 + 4e-3 / 19) ** 0.5) / 2
    second = net.get_submodule("hidden.1")
    with torch.no_grad():
        second.parametrizations.weight.original.fill_(1.01 * edge)
        second.parametrizations.weight.original[:50] = 0.99 * edge
    space = SearchSpace.of(net)
    activate(net.eval(), space.largest())
    assert torch.equal(second.weight.count_nonzero(1), torch.tensor([0] * 50 + [300] * 50))
    subnet = extract(net, space.largest()).eval()
    assert type(subnet.get_submodule("hidden.1")) is torch.nn.Linear
    program = made.program(subnet)
    score, direct = made.score(program, eager(program), "test"), made.evaluate(net, "test")
    assert score.metrics == direct
    assert 0 < direct["nonzero"] < 100
    assert len(score.outputs) == 50
