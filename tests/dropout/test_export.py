"""No method leaves a trace in an exported graph; standout leaves its expectation, a sigmoid and a product.

Each method is looked for in a graph of its own; the files of both runtimes hold one net with all of them.
"""

from collections import Counter

import numpy as np
import pytest
import torch
from catalogue import ARGUMENTS, ON_IMAGES, ON_WEIGHTS, STANDOUT
from torch import nn

from todm import Choice, activate, dropout, extract
from todm.dropout import Site
from todm.elastic import ElasticLinear
from todm.export.executorch import ExecuTorch
from todm.export.onnx import Onnx
from todm.program import Method, Program, eager


class Block(nn.Module):
    """(batch, 5) -> (batch, 5); the hidden layer is elastic, and an image to methods that need one."""

    def __init__(self, hidden: Choice, name: str):
        super().__init__()
        self.up, self.down = ElasticLinear(5, hidden), ElasticLinear(hidden, 5)
        self.site = Site(name, width=hidden, source_width=5)

    def forward(self, x):
        z = self.up(x)
        if self.site.name in ON_IMAGES:
            return self.down(self.site(z.relu().reshape(1, 1, 2, -1)).flatten(1))
        return self.down(self.site(z.relu(), z, x))


class Net(nn.Sequential):
    def __init__(self, names):
        torch.manual_seed(0)
        hidden = Choice("hidden", (4, 6))
        super().__init__(*(Block(hidden, name) for name in names))


X = torch.linspace(-1, 1, 5)[None]


def subnet(names: list[str], bare: bool = False) -> nn.Module:
    """The smaller subnet of a net that has trained with these methods, a block each."""
    net, block = Net(names), {}
    for index, name in enumerate(names if not bare else []):
        arguments = {key: value for key, value in ARGUMENTS.get(name, {}).items() if "width" not in key}
        block[f"weights:{index}.up" if name in ON_WEIGHTS else name] = {"method": name, **arguments}
    dropout.install(net, block)
    activate(net, {"hidden": 4})
    net.train()(X)
    made = extract(net, {"hidden": 4})
    assert torch.allclose(made(X), net.eval()(X), atol=1e-6)  # even in training mode
    return made.eval()


def graph(names: list[str], bare: bool = False) -> Counter:
    nodes = torch.export.export(subnet(names, bare), (X,)).graph.nodes
    return Counter(str(node.target) for node in nodes if node.op == "call_function")


@pytest.mark.parametrize("name", dropout.names())
def test_every_method_is_gone_from_the_graph(name):
    left = graph([name]) - graph([name], bare=True)
    assert not graph([name], bare=True) - graph([name])
    allowed = {"aten.sigmoid.default", "aten.mul.Tensor", "aten.linear.default", "aten.add.Tensor"}
    assert set(left) <= (allowed if name in STANDOUT else set())


@pytest.mark.parametrize("runtime", ["onnx", "executorch"])
def test_files_hold_nothing_of_any_method(runtime, tmp_path):
    backend, found = {"onnx": Onnx, "executorch": ExecuTorch}[runtime](), []
    for bare in (True, False):
        model = subnet(dropout.names(), bare)
        program = Program((Method("forward", "forward", model, {"x": X}, outputs=("y",)),))
        ((path,),) = backend.export(program, tmp_path / str(bare), "float").values()
        (y,) = backend.load(path.parent, "float")["forward"](X.numpy())
        np.testing.assert_allclose(y, eager(program)["forward"](X.numpy())[0], atol=1e-5)
        found.append(operators(runtime, path))
    left = found[1] - found[0]
    assert not found[0] - found[1]
    assert set(left) <= {"Sigmoid", "Mul", "Gemm", "Add", "XnnpackBackend"}


def operators(runtime, path) -> Counter:
    """What a file computes with."""
    if runtime == "onnx":
        import onnx

        return Counter(node.op_type for node in onnx.load(path).graph.node)
    from executorch.exir._serialize._program import deserialize_pte_binary

    (plan,) = deserialize_pte_binary(path.read_bytes()).program.execution_plan
    return Counter([*(operator.name for operator in plan.operators), *(part.id for part in plan.delegates)])
