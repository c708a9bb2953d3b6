"""The pruned transducer loss (Kuang et al., "Pruned RNN-T for fast, memory-efficient ASR training", arXiv 2206.13236).

A simple joiner, the sum of an encoder's and a predictor's logits, says where the alignments pass; the full joiner
then runs on a band of rows around them. Below, E(t, v) and P(u, v) are those logits.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import embedding, pad

from todm.speech.collapse import check_lengths, collapse_rows, labels_of_rows
from todm.speech.lattice import lattice_arcs
from todm.speech.single import single_arcs


def pruned_rnnt_loss(
    encoder_out: Tensor,
    predictor_out: Tensor,
    joiner: Callable[[Tensor], Tensor],
    targets: Tensor,
    encoder_lengths: Tensor,
    target_lengths: Tensor,
    *,
    band: int,
    blank: int = 0,
    simple_encoder: Callable[[Tensor], Tensor],
    simple_predictor: Callable[[Tensor], Tensor],
    lm_scale: float = 0.25,
    am_scale: float = 0.0,
    single: bool = False,
) -> tuple[Tensor, Tensor]:
    """The loss of the simple joiner and that of the full one on a band around its alignments, (batch,) each.

    Training adds both, the first at about half the weight, for it must learn too. The pruned loss leaves out paths,
    so it is at least the exact one, and equals it where the band holds all labels + 1 rows. An utterance that no
    path within the band can say, with more than (band - 1) labels a frame, costs infinitely and pulls nowhere.

    Args:
        encoder_out: (batch, time, size).
        predictor_out: (batch, labels + 1, size).
        joiner: Maps sums (..., size) to logits (..., vocabulary).
        targets: (batch, labels) integers, none of them `blank` within its length.
        encoder_lengths, target_lengths: (batch,) integers, frames (1 or more) and labels (0 or more).
        band: Rows of the lattice kept in each frame, 2 or more.
        simple_encoder, simple_predictor: Linear maps (..., size) to (..., vocabulary).
        lm_scale, am_scale: Smoothing of the simple joiner, see `simple_arcs`.
        single: Whether a frame says one label at most, see `todm.speech.single`.

    Raises:
        ValueError: a shape, length, label or the band is wrong.
    """
    if band < 2:
        raise ValueError(f"band must be 2 or more, as a label leads from one row to the next, not {band}")
    if encoder_out.dim() != 3 or predictor_out.dim() != 3 or encoder_out.shape[::2] != predictor_out.shape[::2]:
        shapes = f"{tuple(encoder_out.shape)} and {tuple(predictor_out.shape)}"
        raise ValueError(f"what is joined must be (batch, time, size) and (batch, labels + 1, size), not {shapes}")
    batch, time, _ = encoder_out.shape
    check_lengths("encoder_lengths", encoder_lengths, batch, 1, time)
    encoder_lengths, target_lengths = (x.to(encoder_out.device) for x in (encoder_lengths, target_lengths))
    scores = simple_encoder(encoder_out), simple_predictor(predictor_out)
    labels = labels_of_rows(targets, target_lengths, predictor_out.shape[1], scores[0].shape[-1], blank)
    labels, band = labels.to(encoder_out.device), min(band, labels.shape[1])
    simple = simple_arcs(*scores, labels, blank, lm_scale, am_scale)
    sum_up = single_arcs if single else lattice_arcs
    simple_loss, arcs = sum_up(simple, encoder_lengths, target_lengths)
    rows = band_rows(arcs, encoder_lengths, target_lengths, band, single)
    places = rows + labels.shape[1] * torch.arange(batch, device=rows.device)[:, None, None]
    sums = encoder_out[:, :, None] + embedding(places, predictor_out.flatten(0, 1))
    kept = collapse_rows(joiner(sums).flatten(0, 1)[:, None], labels.flatten()[places].flatten(0, 1), blank)
    kept = kept.view(batch, time, band, 3)
    if not single:  # No label leads out of the band, in the frame itself.
        last = torch.arange(band, device=rows.device)[:, None] == band - 1
        kept = kept.masked_fill(last & torch.tensor([True, False, False], device=rows.device), -math.inf)
    lattice = kept.new_full((batch, time, labels.shape[1], 3), -math.inf)
    lattice = lattice.scatter(2, rows[..., None].expand_as(kept), kept)
    return simple_loss, sum_up(lattice, encoder_lengths, target_lengths)[0].to(simple_loss.dtype)


def simple_arcs(
    encoder_scores: Tensor, predictor_scores: Tensor, labels: Tensor, blank: int, lm_scale: float, am_scale: float
) -> Tensor:
    """Log-probabilities of {next label, blank} (batch, time, rows, 2) by the simple joiner, smoothed.

    Its own are E + P - ln sum exp(E + P), the sum over the vocabulary a matrix product of exponentials. With a
    weight of `lm_scale` come those of the predictor alone, the softmax of P, and with `am_scale` those of the
    encoder beside the average of what the predictor says in the utterance (section 2.3.2 of the paper).

    Args:
        encoder_scores, predictor_scores: E (batch, time, vocabulary) and P (batch, rows, vocabulary).
        labels: (batch, rows), the label that leads on from each row, `blank` where none is left.
    """
    with torch.autocast(encoder_scores.device.type, enabled=False):
        e, p = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (encoder_scores, predictor_scores))
        of_e = torch.stack(
            [
                e.gather(2, labels[:, None].expand(-1, e.shape[1], -1)),
                e[..., blank, None].expand(-1, -1, labels.shape[1]),
            ],
            -1,
        )
        of_p = _label_and_blank(p, labels, blank)
        arcs = (1 - lm_scale - am_scale) * (of_e + of_p - _log_sum_exp_of_sums(e, p)[..., None])
        if lm_scale:
            arcs = arcs + lm_scale * _label_and_blank(p.log_softmax(-1), labels, blank)
        if am_scale:
            said = torch.arange(labels.shape[1], device=labels.device) <= (labels != blank).sum(1, keepdim=True)
            mean = (p.log_softmax(-1) - said.sum(1)[:, None, None].log()).masked_fill(~said[..., None], -math.inf)
            prior = mean.logsumexp(1)
            of_prior = _label_and_blank(prior[:, None].expand_as(p), labels, blank)
            arcs = arcs + am_scale * (of_e + of_prior - (e + prior[:, None]).logsumexp(-1)[..., None, None])
    ended = (labels == blank)[:, None, :, None] & torch.tensor([True, False], device=labels.device)
    return arcs.masked_fill(ended, -math.inf)


def band_rows(arcs: Tensor, encoder_lengths: Tensor, target_lengths: Tensor, band: int, single: bool = False) -> Tensor:
    """The rows kept in each frame, (batch, time, band), from the occupancy of arcs (batch, time, rows, 2).

    The first of them, s, is where the blanks that leave the band's rows, less the label that enters it from
    below, weigh most (equation 10 of the paper). Then it is made to allow paths: 0 in the first frame,
    `band` rows up to the last label in the last, and s(t) <= s(t + 1) <= s(t) + band - 1. Where a frame says
    one label at most (`single`), all arcs leave it, so their occupancy alone decides, and s climbs by 1 at most.
    """
    label, blank = arcs.unbind(-1)
    time = label.shape[1]
    leaving, entering = (label + blank, torch.zeros_like(label)) if single else (blank, pad(label, (1, -1)))
    kept = leaving.unfold(2, band, 1).sum(-1)
    entering = entering[..., : kept.shape[2]]
    end = (target_lengths + 1 - band).clamp(min=0)[:, None]
    frame = torch.arange(time, device=arcs.device)
    first = torch.where(frame < encoder_lengths[:, None] - 1, (kept - entering).argmax(2), end)
    reach = (1 if single else band - 1) * frame
    first = first.minimum(end).minimum(reach).flip(1).cummin(1).values
    first = (first - reach.flip(0)).cummax(1).values.flip(1) + reach
    return first[..., None] + torch.arange(band, device=arcs.device)


def _label_and_blank(scores: Tensor, labels: Tensor, blank: int) -> Tensor:
    """Of scores (batch, rows, vocabulary) those of each row's label and of the blank, (batch, 1, rows, 2)."""
    return torch.stack([scores.gather(2, labels[..., None])[..., 0], scores[..., blank]], -1)[:, None]


def _log_sum_exp_of_sums(e: Tensor, p: Tensor) -> Tensor:
    """ln sum over v of exp(e(t, v) + p(u, v)): (batch, time, v) and (batch, rows, v) to (batch, time, rows)."""
    top_e, top_p = (x.detach().amax(-1, keepdim=True) for x in (e, p))
    total = (e - top_e).exp() @ (p - top_p).exp().mT
    # Two vectors whose large entries never meet leave nothing.
    return total.clamp(min=torch.finfo(total.dtype).tiny).log() + top_e + top_p.mT
