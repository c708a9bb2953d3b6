"""Predictor, joiner and lattice by their definitions, and what of them is deployed."""

import pytest
import torch

from todm import SearchSpace, extract
from todm.speech.encoder import EncoderConfig
from todm.speech.lattice import collapse, rnnt_loss
from todm.speech.transducer import BLANK, Predictor, Transducer

CONFIG = EncoderConfig(width=[16], depth=[1, 2], hidden=[8, 16], heads=[2], head_size=4, states=[3], front=8)


@pytest.fixture
def model() -> Transducer:
    torch.manual_seed(0)
    return Transducer(CONFIG, vocabulary=7, joiner_size=12, embedding_size=5)


def test_minus_one_embeds_to_nothing():
    predictor = Predictor(6, 4, 3)
    embed, project = predictor.embed.weight, predictor.project
    for symbols, parts in {
        (-1, 0): (torch.zeros(4), embed[0]),
        (-1, -1): (torch.zeros(4), torch.zeros(4)),
        (5, 2): (embed[5], embed[2]),
        (2, 5): (embed[2], embed[5]),
    }.items():
        expected = project(torch.cat(parts).relu())
        assert torch.allclose(predictor(torch.tensor([symbols]))[0], expected, atol=1e-6)
    predictor(torch.tensor([[-1, 3]])).sum().backward()
    assert embed.grad[[0, 1, 2, 4, 5]].abs().max() == 0  # and leaves the embedding of 0 alone
    assert predictor(torch.zeros(2, 9, 2, dtype=torch.int64)).shape == (2, 9, 3)


def test_every_cell_of_the_lattice_is_the_joiner_on_the_last_two_symbols(model):
    tokens = torch.tensor([[3, 1, 6], [2, 2, 0]])
    encoded = torch.randn(2, 4, 12)
    lattice = model.lattice(encoded, tokens)
    assert lattice.shape == (2, 4, 4, 7)
    history = torch.cat([torch.tensor([[-1, BLANK]] * 2), tokens], dim=1)
    for b in range(2):
        for t in range(4):
            for u in range(4):
                predicted = model.predictor(history[b : b + 1, u : u + 2])[0]
                expected = model.joiner.out((encoded[b, t] + predicted).tanh())
                assert torch.allclose(lattice[b, t, u], expected, atol=1e-6)


def test_the_collapsed_lattice_holds_the_probabilities_of_the_whole(model):
    tokens, lengths = torch.tensor([[3, 1, 6], [2, 2, 0]]), torch.tensor([3, 2])
    lattice = model.lattice(torch.randn(2, 4, 12), tokens)
    collapsed, p = collapse(lattice, tokens, lengths, BLANK), lattice.double().softmax(-1)
    assert torch.allclose(collapsed.exp().sum(-1), torch.ones(2, 4, 4, dtype=torch.float64), atol=1e-12)
    for b, u in [(0, 0), (0, 2), (1, 1)]:
        label, blank, rest = collapsed[b, :, u].exp().unbind(-1)
        assert torch.allclose(label, p[b, :, u, tokens[b, u]], atol=1e-6)
        assert torch.allclose(blank, p[b, :, u, BLANK], atol=1e-6)
        assert torch.allclose(rest, 1 - label - blank, atol=1e-6)
    assert (collapsed[1, :, 2:, 0] == -torch.inf).all()


def test_it_starts_with_blanks_which_makes_the_first_loss_small(model):
    tokens, times, labels = torch.tensor([[3, 1]]), torch.tensor([9]), torch.tensor([2])
    model.start_with_blanks(5.0)
    assert model.joiner.out.bias[BLANK] == model.ctc.bias[BLANK] == 5.0
    assert model.joiner.out.bias[1:].abs().max() < 1
    encoded = torch.randn(1, 9, 12)
    lattice = model.lattice(encoded, tokens)
    assert (lattice.softmax(-1)[..., BLANK] > 0.8).all()
    with_bias = rnnt_loss(lattice, tokens, times, labels)
    model.start_with_blanks(0.0)
    assert with_bias < rnnt_loss(model.lattice(encoded, tokens), tokens, times, labels)


def test_what_is_deployed_has_no_ctc_head(model):
    subnet = extract(model.eval(), SearchSpace.of(model).largest())
    assert subnet.ctc is None
    assert model.ctc is not None
    assert set(model.state_dict()) - set(subnet.state_dict()) == {"ctc.weight", "ctc.bias"}
    tokens, x = torch.tensor([[3, 1]]), torch.randn(1, 12, 80)
    for net in (model, subnet):
        net.start_with_blanks(1.0)  # stumbles over no absent head
    whole, deployed = (net.lattice(net.encoder(x), tokens) for net in (model, subnet))
    assert torch.allclose(whole, deployed, atol=1e-5)
