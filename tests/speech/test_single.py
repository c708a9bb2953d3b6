"""The lattice of one label a frame at most against every alignment of it, and what it is for: greedy decoding."""

import math
from itertools import combinations

import pytest
import torch
from alignments import check_as_enumerated, total_and_occupancy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from todm.speech import pruned_rnnt_loss
from todm.speech.collapse import collapse
from todm.speech.single import single_arcs


def by_enumeration(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and occupancy of the arcs of one utterance, logits (time, labels + 1, vocabulary), blank 0."""
    return total_and_occupancy(*scores_and_passes(logits, targets))


def scores_and_passes(logits: Tensor, targets: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Log-probability of every alignment of such an utterance, and the arcs (time, labels + 1, 2) it goes over."""
    log_p, (time, rows, _) = logits.log_softmax(-1), logits.shape
    scores, passes = [], []
    for speaking in combinations(range(time), rows - 1):
        score, passed, u = logits.new_zeros(()), torch.zeros(time, rows, 2), 0
        for t in range(time):
            says = t in speaking
            score = score + log_p[t, u, targets[u] if says else 0]
            passed[t, u, 0 if says else 1] = 1
            u += says
        scores.append(score)
        passes.append(passed)
    return scores, passes


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_alignment_is_counted_once(data: st.DataObject) -> None:
    batch, time, labels, vocabulary = (data.draw(st.integers(*bounds)) for bounds in ((1, 3), (1, 5), (0, 3), (2, 4)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    scale = data.draw(st.sampled_from([0.1, 1.0, 10.0, 300.0]))
    logits = scale * torch.randn(batch, time, labels + 1, vocabulary, dtype=torch.float64, generator=generator)
    targets = torch.randint(1, vocabulary, (batch, labels), generator=generator)
    frames = torch.randint(1, time + 1, (batch,), generator=generator)
    lengths = torch.randint(0, labels + 1, (batch,), generator=generator).minimum(frames)
    check_as_enumerated(
        lambda given: single_arcs(collapse(given, targets, lengths), frames, lengths),
        by_enumeration, logits, targets, frames, lengths,
    )  # fmt: skip


def test_more_labels_than_frames_cost_infinitely_and_pull_nowhere() -> None:
    logits = torch.zeros(2, 3, 5, 6, requires_grad=True)
    targets, frames, lengths = torch.ones(2, 4, dtype=torch.long), torch.tensor([3, 3]), torch.tensor([4, 3])
    loss, arcs = single_arcs(collapse(logits, targets, lengths), frames, lengths)
    assert loss[0] == math.inf
    assert loss[1].item() == pytest.approx(3 * math.log(6))  # a label in every frame
    loss.sum().backward()
    assert not arcs[0].any()
    assert not logits.grad[0].any()  # type: ignore[index]
    assert logits.grad[1].isfinite().all()  # type: ignore[index]


@pytest.mark.parametrize("band", [2, 3, 4, 9])
def test_the_pruned_loss_of_such_a_lattice(band: int) -> None:
    """Never below the exact one, equal to it with all rows, and finite even where every frame has its label."""
    torch.manual_seed(band)
    encoded, predicted = torch.randn(3, 14, 6).double(), torch.randn(3, 9, 6).double()
    targets, frames, lengths = torch.randint(1, 7, (3, 8)), torch.tensor([14, 8, 5]), torch.tensor([8, 8, 2])
    joiner, maps = nn.Linear(6, 7).double(), [nn.Linear(6, 7).double() for _ in range(2)]
    simple, pruned = pruned_rnnt_loss(
        encoded, predicted, joiner, targets, frames, lengths, band=band, simple_encoder=maps[0],
        simple_predictor=maps[1], lm_scale=0.0, single=True,
    )  # fmt: skip
    losses = []
    for logits in (
        maps[0](encoded)[:, :, None] + maps[1](predicted)[:, None],
        joiner(encoded[:, :, None] + predicted[:, None]),
    ):
        losses.append(single_arcs(collapse(logits, targets, lengths), frames, lengths)[0])
    torch.testing.assert_close(simple, losses[0])
    assert pruned.isfinite().all()
    assert (pruned > losses[1] - 1e-9).all()
    if band == 9:
        torch.testing.assert_close(pruned, losses[1])
    else:
        assert pruned[0] > losses[1][0] + 1e-3


def test_what_this_loss_has_learnt_greedy_search_says() -> None:
    """Free logits of a whole lattice: the best symbol of each frame is read off it. All labels must fit, one a frame."""
    torch.manual_seed(0)
    targets, frames, lengths = torch.randint(1, 5, (4, 6)), torch.full((4,), 7), torch.full((4,), 6)
    logits = torch.randn(4, 7, 7, 5, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.3)
    for _ in range(60):
        optimizer.zero_grad()
        single_arcs(collapse(logits, targets, lengths), frames, lengths)[0].sum().backward()
        optimizer.step()
    for n in range(4):
        said: list[int] = []
        for t in range(7):
            symbol = int(logits[n, t, len(said)].argmax())
            said += [symbol] if symbol else []
        assert said == targets[n].tolist()
