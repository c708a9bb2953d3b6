"""The price of late symbols against every alignment, priced one by one, and what training makes of it."""

from functools import partial

import pytest
import torch
from alignments import check_as_enumerated, total_and_occupancy
from hypothesis import given, settings
from hypothesis import strategies as st
from test_single import scores_and_passes
from torch import Tensor

from todm.speech.collapse import collapse
from todm.speech.delay import penalise_delay
from todm.speech.single import single_arcs
from todm.speech.task import TransducerConfig


def priced(logits: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Loss and occupancy as without, with the price of every label of an alignment."""
    scores, passes = scores_and_passes(logits, targets)
    frames = torch.arange(len(logits), dtype=logits.dtype) - (len(logits) - 1) / 2
    prices = [penalty * (passed[..., 0].sum(1) * frames).sum() for passed in passes]
    return total_and_occupancy([score - price for score, price in zip(scores, prices, strict=True)], passes)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_alignment_pays_for_each_of_its_labels(data: st.DataObject) -> None:
    batch, time, labels = (data.draw(st.integers(*bounds)) for bounds in ((1, 3), (1, 5), (0, 3)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    penalty = data.draw(st.sampled_from([-3.0, -0.01, 0.2]))
    logits = torch.randn(batch, time, labels + 1, 4, dtype=torch.float64, generator=generator)
    targets = torch.randint(1, 4, (batch, labels), generator=generator)
    frames = torch.randint(1, time + 1, (batch,), generator=generator)
    lengths = torch.randint(0, labels + 1, (batch,), generator=generator).minimum(frames)
    check_as_enumerated(
        lambda given: single_arcs(penalise_delay(collapse(given, targets, lengths), frames, penalty), frames, lengths),
        partial(priced, penalty=penalty), logits, targets, frames, lengths,
    )  # fmt: skip


def test_the_price_has_the_precision_of_the_lattice() -> None:
    priced = penalise_delay(torch.zeros(1, 4, 1, 3, dtype=torch.float64), torch.tensor([4]), 0.2)
    assert priced[0, :, 0, 0].tolist() == [0.2 * 1.5, 0.2 * 0.5, -0.2 * 0.5, -0.2 * 1.5]


def test_without_a_price_nothing_changes() -> None:
    lattice = torch.randn(2, 6, 3, 3).log_softmax(-1)
    assert torch.equal(penalise_delay(lattice, torch.tensor([6, 4]), 0.0), lattice)


@pytest.mark.parametrize(("penalty", "early", "late"), [(0.5, 0, 3), (-0.5, 8, 11)])
def test_training_moves_symbols_where_they_are_cheap(penalty: float, early: float, late: float) -> None:
    """A lattice of free logits in which nothing but the price says where the one label of twelve frames belongs."""
    logits = torch.zeros(1, 12, 2, 3, requires_grad=True)
    targets, frames, lengths = torch.tensor([[2]]), torch.tensor([12]), torch.tensor([1])
    for _ in range(60):
        lattice = collapse(logits, targets, lengths)
        loss, arcs = single_arcs(penalise_delay(lattice, frames, penalty), frames, lengths)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        logits = (logits - gradient).detach().requires_grad_()
    said = (arcs[0, :, :, 0].sum(1) * torch.arange(12)).sum()
    assert early <= said <= late


def test_a_price_that_would_not_be_used() -> None:
    with pytest.raises(ValueError, match="the pruned loss has no delay_penalty"):
        TransducerConfig(loss="pruned", delay_penalty=(-0.01, -0.01))
    for prices, updates in (((0.0, 0.0), 100), ((-0.01, 0.01), 0)):
        with pytest.raises(ValueError, match="delay_updates is for a delay_penalty that changes"):
            TransducerConfig(delay_penalty=prices, delay_updates=updates)
