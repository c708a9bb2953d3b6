"""A small elastic network, shared by the tests of the search."""

import torch
from torch import Tensor, nn

from todm.elastic import ElasticLinear, ElasticStack
from todm.program import Method, Program
from todm.space import Choice

WIDTH = 16
DEPTHS = (1, 2, 3, 4)
HIDDEN = (8, 16, 24, 32)


class Block(nn.Module):
    def __init__(self, hidden: Choice) -> None:
        super().__init__()
        self.up = ElasticLinear(WIDTH, hidden)
        self.down = ElasticLinear(hidden, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    """Four residual blocks of which 1 to 4 are used, each with its own hidden width: 340 networks."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [Block(Choice(f"hidden{i}", HIDDEN)) for i in range(max(DEPTHS))]
        self.blocks = ElasticStack(blocks, Choice("depth", DEPTHS))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def program_of(subnet: nn.Module) -> Program:
    method = Method("forward", "model", subnet.eval(), {"x": torch.zeros(1, 5, WIDTH)}, ("y",))
    return Program((method,))


def counted(arch: dict[str, int]) -> dict[str, float]:
    """Parameters and MACs of a network of `Net`'s space, in closed form."""
    hidden = [arch[f"hidden{i}"] for i in range(arch["depth"])]
    params = sum(2 * WIDTH * h + h + WIDTH for h in hidden)
    return {"params": params, "macs": float(5 * sum(2 * WIDTH * h for h in hidden))}
