"""What ScaledAdam's scale learning does to shared weights: `python -m bench.sharing` prints docs/engine.md's table.

A tensor's scale is learnt from the rows in use and moves all of them, also those that got no gradient. Small elastic
networks learn scikit-learn's digits with and without that, from the same batches and seeds.
"""

import random
from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from statistics import mean, stdev

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from todm import Choice, SearchSpace, activate
from todm.elastic import ElasticLayerNorm, ElasticLinear
from todm.optim import ScaledAdam
from todm.sandwich import sandwich
from todm.space import Arch

UPDATES, SEEDS, BATCH = 300, 6, 64
WIDTHS = [4, 8, 16, 32, 64]
T_QUANTILE = 2.571
"""Student's, for a 95 % interval of SEEDS differences."""
Sampler = Callable[[SearchSpace, random.Random], list[Arch]]

NETS: dict[str, Sampler] = {
    "sandwich": lambda space, rng: list(sandwich(space, rng, 1).values()),
    "one random net": lambda space, rng: [space.sample(rng)],
}


class Net(nn.Module):
    """Two hidden layers of elastic width."""

    def __init__(self) -> None:
        super().__init__()
        first, second = Choice("first", WIDTHS), Choice("second", WIDTHS)
        self.layers = nn.ModuleList([ElasticLinear(64, first), ElasticLinear(first, second), ElasticLinear(second, 10)])
        self.norms = nn.ModuleList([ElasticLayerNorm(first), ElasticLayerNorm(second)])

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 64) to (batch, 10)."""
        for layer, norm in zip(self.layers, self.norms, strict=False):
            x = norm(layer(x).relu())
        return self.layers[-1](x)


def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 64) in 0 to 1, and labels."""
    images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    return images.float() / 16, labels


def train(net: Net, sampler: Sampler, scale_rate: float, hold: bool, seed: int, updates: int = UPDATES) -> None:
    """`hold`: rows and columns without any gradient in an update are put back to what they were."""
    images, labels = digits()
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    space, optimizer = SearchSpace.of(net), ScaledAdam(net.parameters(), 0.03, 2.0, scalar_lr_scale=scale_rate)
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = 0.03 * (1 - update / updates)
        rows = torch.randint(0, 1200, (BATCH,), generator=generator)
        optimizer.zero_grad()
        for arch in sampler(space, rng):
            activate(net, arch)
            F.cross_entropy(net(images[rows]), labels[rows]).backward()
        before = [p.detach().clone() for p in net.parameters()]
        optimizer.step()
        if hold:
            with torch.no_grad():
                for p, old in zip(net.parameters(), before, strict=True):
                    p.copy_(torch.where(p.grad == 0, old, p))  # type: ignore[arg-type]


def errors(net: Net) -> list[float]:
    """Percent of the test images that the smallest, a middle and the largest net get wrong."""
    images, labels = (part[1200:] for part in digits())
    result = []
    for width in (WIDTHS[0], WIDTHS[2], WIDTHS[-1]):
        activate(net, {"first": width, "second": width})
        with torch.no_grad():
            result.append(100 * float((net(images).argmax(1) != labels).float().mean()))
    return result


@cache
def trained(nets: str, scale_rate: float, hold: bool, seed: int) -> Net:
    """A network after training."""
    torch.manual_seed(seed)
    net = Net()
    train(net, NETS[nets], scale_rate, hold, seed)
    return net


def continued(scale_rate: float, hold: bool, seed: int) -> Net:
    """Trained as published, and then as many updates of the smallest net alone: the others get no gradient."""
    net = deepcopy(trained("sandwich", 0.1, False, seed))
    train(net, lambda space, rng: [space.smallest()], scale_rate, hold, seed)
    return net


def main() -> None:
    """Means over the seeds, and the paired difference of each row from the first of its block, 95 % interval."""
    variants = [("as published", 0.1, False), ("unused rows held", 0.1, True), ("no scale learning", 0.0, False)]
    blocks = {name: partial(trained, name) for name in NETS} | {"then the smallest alone": continued}
    for block, run in blocks.items():
        base: list[list[float]] = []
        for name, rate, hold in variants:
            found = [errors(run(rate, hold, seed)) for seed in range(SEEDS)]
            base = base or found
            cells = []
            for ours, first in zip(zip(*found, strict=True), zip(*base, strict=True), strict=True):
                gaps = [a - b for a, b in zip(ours, first, strict=True)]
                cells.append(f"{mean(ours):6.2f} ({mean(gaps):+.2f} +- {T_QUANTILE * stdev(gaps) / SEEDS**0.5:.2f})")
            print(f"{block:25}{name:20}" + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
