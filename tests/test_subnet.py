"""An extracted network is ordinary torch, computes what the supernet computes, and holds nothing else."""

import copy
import itertools
import random

import pytest
import torch
from safetensors.torch import save
from torch import nn

import todm.elastic
from todm import Choice, SearchSpace, activate, extract
from todm.dropout.adaptive_width import AdaptiveDropout
from todm.elastic import (
    ElasticConv1d,
    ElasticConv2d,
    ElasticEmbedding,
    ElasticGroupNorm,
    ElasticLayerNorm,
    ElasticLinear,
    ElasticRMSNorm,
    ElasticStack,
    MultiheadAttention,
)
from todm.space import Multiple
from todm.speech.encoder import EncoderConfig
from todm.speech.transducer import Transducer

ELASTIC = tuple(getattr(todm.elastic, name) for name in vars(todm.elastic) if name.startswith("Elastic"))


class ImageBlock(nn.Module):
    def __init__(self, channels: Choice, hidden: Choice):
        super().__init__()
        self.spread = ElasticConv2d(channels, hidden, 1, bias=False)
        self.depthwise = ElasticConv2d(hidden, hidden, 3, padding=2, dilation=2, depthwise=True)
        self.norm = ElasticGroupNorm(hidden, 4)
        self.drop = AdaptiveDropout(0.3, hidden)
        self.gather = ElasticConv2d(hidden, channels, (1, 3), padding=(0, 1))

    def forward(self, x):
        return x + self.gather(self.drop(torch.relu(self.norm(self.depthwise(self.spread(x))))))


class ImageNet(nn.Module):
    """Images (batch, 3, 16, 16) -> logits (batch, 10). One block stands before the stack and inside it."""

    def __init__(self):
        super().__init__()
        channels = Choice("channels", (8, 12, 16))
        self.stem = ElasticConv2d(3, channels, 3, stride=2, padding="valid")
        blocks = [ImageBlock(channels, Choice(f"hidden{i}", (8, 16, 24))) for i in range(4)]
        self.first = blocks[1]
        self.blocks = ElasticStack(blocks, Choice("depth", (1, 2, 3, 4)))
        self.head = ElasticLinear(channels, 10, bias=False)

    def forward(self, x):
        x = self.first(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class TextBlock(nn.Module):
    def __init__(self, width: Choice, index: int):
        super().__init__()
        heads, hidden = Choice(f"heads{index}", (1, 2, 4)), Choice(f"hidden{index}", (8, 16, 32))
        self.norm1, self.norm2 = ElasticLayerNorm(width), ElasticRMSNorm(width)
        self.attention = MultiheadAttention(width, heads, 6, causal=index % 2 == 0)
        self.up, self.down = ElasticConv1d(width, hidden, 3), ElasticConv1d(hidden, width, 1)
        self.local = ElasticConv1d(hidden, hidden, 3, padding=1, depthwise=True)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        y = nn.functional.pad(self.norm2(x).transpose(1, 2), (2, 0))
        return x + self.down(torch.relu(self.local(self.up(y)))).transpose(1, 2)


class TextNet(nn.Module):
    """Symbols (batch, time) -> logits (batch, time, 11), with stacks of both kinds."""

    def __init__(self):
        super().__init__()
        width = Choice("width", (8, 16, 24))
        self.embed = ElasticEmbedding(11, width)
        self.lower = ElasticStack([TextBlock(width, i) for i in range(3)], Choice("lower", (1, 2, 3)), "even")
        self.upper = ElasticStack([TextBlock(width, i) for i in range(3, 6)], Choice("upper", (1, 3)), "first")
        self.norm, self.head = ElasticRMSNorm(width), ElasticLinear(width, 11)

    def forward(self, x):
        x = self.embed(x)
        for block in (*self.lower, *self.upper):
            x = block(x)
        return self.head(self.norm(x))


def transducer(config: EncoderConfig | None = None) -> Transducer:
    return Transducer(config or EncoderConfig(), 12, 64, 32)


def encode(model: Transducer, x: torch.Tensor) -> torch.Tensor:
    return model.lattice(model.encoder(x), torch.tensor([[1, 3, 2, 9, 8], [5, 4, 6, 7, 0]]))


NETS = {
    "image": (ImageNet, lambda: torch.randn(3, 3, 16, 16), nn.Module.__call__),
    "text": (TextNet, lambda: torch.randint(11, (3, 7)), nn.Module.__call__),
    "speech": (transducer, lambda: torch.randn(2, 35, 80), encode),
}


def randomised(model: nn.Module) -> nn.Module:
    """Norms and biases that are not the ones they start with, so that a wrong slice of them shows."""
    with torch.no_grad():
        for module in model.modules():
            for name, p in module.named_parameters(recurse=False):
                if name == "bias":
                    p.normal_(0, 0.5)
                elif "Norm" in type(module).__name__:
                    p.uniform_(0.3, 1.7)
    return model.eval()


@pytest.fixture(params=NETS)
def net(request):
    build, inputs, call = NETS[request.param]
    torch.manual_seed(1)
    return randomised(build()), inputs(), call


@torch.no_grad()
def test_activate_equals_extract(net):
    model, x, call = net
    space, rng = SearchSpace.of(model), random.Random(0)
    before = copy.deepcopy(model.state_dict())
    outputs = {}
    for arch in [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(65))]:
        activate(model, arch)
        outputs[str(space.canonical(arch))] = y = call(model, x)
        activate(model, space.largest())
        subnet = extract(model, arch)
        assert (call(subnet, x) - y).abs().max() <= 1e-5
    holds_nothing_elastic(subnet)
    assert all(choice.active == choice.full for choice in choices_of(model))  # extract left the supernet alone
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    # Different architectures do compute different things.
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.pairwise(outputs.values()))


def holds_nothing_elastic(subnet: nn.Module) -> None:
    for module in subnet.modules():
        assert not isinstance(module, ELASTIC)
        assert not any(isinstance(value, Choice | Multiple) for value in vars(module).values())
    with pytest.raises(ValueError, match="no Choice"):
        SearchSpace.of(subnet)


def choices_of(model: nn.Module) -> list[Choice]:
    values = [value for module in model.modules() for value in vars(module).values()]
    return [value for value in values if isinstance(value, Choice)]


def test_the_extracted_network_is_its_own(net):
    model, x, call = net
    subnet = extract(model, SearchSpace.of(model).smallest())
    with torch.no_grad():
        expected = call(subnet, x)
        for p in model.parameters():
            p.zero_()
        assert torch.equal(call(subnet, x), expected)
    for p in subnet.parameters():
        assert p.is_contiguous()
        assert p.requires_grad
        assert p.untyped_storage().nbytes() == p.nbytes
    call(subnet, x).square().sum().backward()
    assert all(p.grad is not None for name, p in subnet.named_parameters() if "ctc" not in name)


def test_training_and_evaluation_mode_carry_over(net):
    model = net[0]
    arch = SearchSpace.of(model).smallest()
    assert not any(module.training for module in extract(model, arch).modules())
    assert all(module.training for module in extract(model.train(), arch).modules())


def test_an_extracted_dropout_keeps_the_rate_of_its_width():
    subnet = extract(ImageNet(), {"channels": 8, "depth": 1, **{f"hidden{i}": 8 for i in range(4)}})
    drop = subnet.blocks[0].drop.train()
    share = (drop(torch.ones(100_000)) == 0).float().mean()
    assert share == pytest.approx(0.3 * 8 / 24, rel=0.05)


def test_a_module_used_twice_stays_one():
    model = ImageNet()
    subnet = extract(model, {**SearchSpace.of(model).largest(), "hidden1": 8})
    assert subnet.first is subnet.blocks[1]
    assert subnet.first.depthwise is subnet.blocks[1].depthwise
    assert type(subnet.first.depthwise) is nn.Conv2d
    assert subnet.first.depthwise.weight.shape == (8, 1, 3, 3)
    assert isinstance(subnet.blocks, nn.ModuleList)
    tied = ElasticLinear(3, 3 * Choice("n", (1,)))
    layers = extract(nn.Sequential(tied, nn.Sequential(tied, nn.ReLU())), {"n": 1})
    assert layers[0] is layers[1][0]
    root = extract(ElasticLinear(3, Choice("w", (2, 4))), {"w": 2})  # the model itself may be one layer
    assert type(root) is nn.Linear
    assert root.weight.shape == (2, 3)


@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_the_file_of_a_recogniser_is_as_large_as_its_weights(end):
    model = transducer()
    arch = getattr(SearchSpace.of(model), end)()
    subnet = extract(model, arch)
    weights = sum(p.numel() * p.element_size() for p in subnet.parameters())
    size = len(save(subnet.state_dict()))
    assert weights < size < 1.02 * weights
    # And those are all there are, in closed form.
    d, depth = 64, arch["depth"]
    hidden = sum(arch[f"hidden{i}"] for i in range(depth))
    front = (240 * 48 + 48) + (144 * d + d)
    block = 2 * 2 * d + (d * 64 + 64) + (32 * d + d) + d + 8 * (1 + 1 + 16 * 4)
    ends = 2 * d + (d * 64 + 64) + (12 * 32 + 64 * 64 + 64) + (64 * 12 + 12)
    assert weights == 4 * (front + depth * block + hidden * (2 * d + 1) + ends)


def test_gradients_reach_only_the_active_slice(net):
    model, x, call = net
    for arch in (SearchSpace.of(model).smallest(), SearchSpace.of(model).largest()):
        activate(model, arch)
        model.zero_grad()
        call(model, x).square().sum().backward()
        # What the subnet holds is marked by extracting a copy whose weights are their own names.
        names, marked = {}, copy.deepcopy(model).double()
        with torch.no_grad():
            for number, (name, p) in enumerate(marked.named_parameters()):
                p.copy_(number * 2**24 + torch.arange(p.numel(), dtype=torch.float64).view_as(p))
                names[number] = name
        used = {name: set() for name in names.values()}
        for p in extract(marked, arch).parameters():
            values = p.detach().flatten().long()
            used[names[int(values[0]) >> 24]] |= set((values & (2**24 - 1)).tolist())
        for name, p in model.named_parameters():
            reached = set() if p.grad is None else set(p.grad.flatten().nonzero().flatten().tolist())
            assert reached <= used[name], name
            assert len(reached) >= 0.25 * len(used[name]), name  # ReLUs and absent symbols leave some out
