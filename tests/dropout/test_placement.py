"""Methods go where a recipe's block says, reach every kind of place, and are gone from an extracted net."""

import pytest
import torch
from torch import nn

from todm import Choice, SearchSpace, activate, dropout, extract
from todm.dropout import Rates, Site
from todm.dropout.schedule import Linear
from todm.elastic import ElasticLinear, ElasticStack, MultiheadAttention
from todm.errors import TodmError


class Block(nn.Module):
    def __init__(self, width, index):
        super().__init__()
        hidden = Choice(f"hidden{index}", (4, 8, 16))
        self.attention = MultiheadAttention(width, Choice(f"heads{index}", (1, 2)), 4)
        self.up, self.down = ElasticLinear(width, hidden), ElasticLinear(hidden, width)
        self.drop = Site("feed_forward", width=hidden, shared_axis=1, source_width=width)
        self.residual = Site("residual")

    def forward(self, x):
        x = x + self.attention(x)
        z = self.up(x)
        return x + self.residual(self.down(self.drop(z.relu(), z, x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        width = Choice("width", (4, 8))
        self.embed = nn.Embedding(7, 8)
        self.project = ElasticLinear(8, width)
        self.blocks = ElasticStack([Block(width, i) for i in range(3)], Choice("depth", (1, 2, 3)))
        self.mix = nn.MultiheadAttention(5, 1, batch_first=True)
        self.head = ElasticLinear(width, 5)

    def forward(self, symbols):
        x = self.project(self.embed(symbols))
        for block in self.blocks:
            x = block(x)
        x = self.head(x)
        return self.mix(x, x, x)[0]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


SYMBOLS = torch.arange(12).reshape(2, 6) % 7
PLACES = [
    "feed_forward", "attention", "residual", "before:blocks.1.up", "before:head", "after:embed", "after:blocks.0",
    "attention:mix",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_every_place_acts_in_training_alone_and_follows_its_schedule(net, place):
    expected = net.eval()(SYMBOLS)
    dropout.install(net, {place: {"method": "standard", "rate": {"schedule": "linear", "start": 0.0, "end": 0.6}}})
    rates = Rates(net, total=10)
    rates.step(0)
    assert torch.allclose(net.train()(SYMBOLS), expected, atol=1e-6)  # the rate starts at zero
    rates.step(5)
    assert rates.values() == {place: pytest.approx(0.3)}
    assert not torch.allclose(net(SYMBOLS), expected, atol=1e-3)
    assert torch.allclose(net.eval()(SYMBOLS), expected, atol=1e-6)


def test_an_extracted_net_has_no_site_method_or_wrapper_left(net):
    names = {type(module) for module in extract(net, SearchSpace.of(net).largest()).modules()}
    block = {place: {"method": "standard", "rate": 0.3} for place in PLACES}
    dropout.install(net, block)
    arch = SearchSpace.of(net).smallest()
    activate(net, arch)
    subnet = extract(net.eval(), arch)
    assert {type(module) for module in subnet.modules()} == names
    assert all(module.method is None for module in subnet.modules() if isinstance(module, Site))
    assert subnet.mix.dropout == 0
    assert torch.allclose(subnet.train()(SYMBOLS), net(SYMBOLS), atol=1e-6)  # even in training mode


def test_sites_of_one_name_get_methods_of_their_own_and_share_a_curve(net):
    dropout.install(net, {"feed_forward": {"method": "adaptive_width", "rate": 0.4, "shared_axis": None}})
    methods = [block.drop.method for block in net.blocks]
    assert len({id(method) for method in methods}) == 3
    assert [method.shared_axis for method in methods] == [None] * 3  # the block's word counts, not the site's
    activate(net, SearchSpace.of(net).largest() | {"hidden1": 4})
    assert [method.probability() for method in methods] == pytest.approx([0.4, 0.1, 0.4])
    assert Rates(net).values() == {"feed_forward": 0.4}
    assert net.blocks[1].drop.train().fused() == pytest.approx(0.1)
    assert net.blocks[1].drop.eval().fused() == 0


def test_layers_of_one_site_can_differ(net):
    schedule = {"schedule": "front_to_back", "start": 0.2, "end": 0.0}
    dropout.install(net, {"residual": {"method": "standard", "rate": schedule}})
    rates = Rates(net, total=400)
    seen = []
    for update in (0, 99, 100, 200, 300, 399):
        rates.step(update)
        seen.append(list(rates.values().values()))
    assert list(rates.values()) == ["residual", "blocks.1.residual", "blocks.2.residual"]
    a = 0.2
    assert seen == [[a, a, a], [a, a, a], [0, a, a], [0, 0, a], [0, 0, 0], [0, 0, 0]]


def test_a_wrapped_layer_still_answers_for_itself(net):
    dropout.install(net, {"before:head": {"method": "standard"}})
    assert net.head.weight is net.head.layer.weight
    with pytest.raises(AttributeError, match="nothing"):
        _ = net.head.nothing


def test_a_schedule_object_works_as_well_as_its_description(net):
    dropout.install(net, {"residual": {"method": "standard", "rate": Linear(0.5, 0.1)}})
    rates = Rates(net, total=8)
    rates.step(4)
    assert rates.values() == {"residual": pytest.approx(0.3)}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"feed": {"method": "standard"}}, r"'feed': the model has no such place; it has attention, feed_forward, residual"),
        ({"before:body": {"method": "standard"}}, r"no module 'body'; its layers are .*blocks.0.up"),
        ({"before:": {"method": "standard"}}, "no such place"),
        ({"attention:head": {"method": "standard"}}, r"'head' is ElasticLinear, not nn.MultiheadAttention"),
        ({"residual": {"method": "standart"}}, r"unknown dropout 'standart'; there are adaptive_bernoulli, .*, adaptive_width"),
        ({"residual": {"method": "standard", "p": 0.1}}, r"no argument 'p'; it has rate, shared_axis"),
        ({"residual": {"method": "standard", "rate": 1.5}}, r"dropout rate must be in \[0, 1\), got 1.5"),
        ({"residual": {"method": "standard", "rate": "high"}}, r"a rate is a number or \{schedule: NAME"),
        ({"residual": {"method": "standard", "rate": {"schedule": "liner"}}}, "one of constant, linear"),
        ({"residual": {"method": "standard", "rate": {"schedule": "linear", "stop": 1}}}, "no argument 'stop'; it has start"),
        ({"residual": {"method": "standard", "rate": {"schedule": "linear"}}}, "start"),
        ({"residual": {"method": "adaptive_width", "rate": 0.1}}, "width"),
        ({"residual": {"rate": 0.1}}, r"write \{method: NAME"),
        ({"residual": 0.1}, r"write \{method: NAME"),
    ],
)  # fmt: skip
def test_what_a_user_gets_wrong_is_one_clear_line(net, block, message):
    with pytest.raises(TodmError, match=message) as raised:
        dropout.install(net, block)
    assert "\n" not in str(raised.value)
