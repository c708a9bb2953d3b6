"""The transducer's lattice without frames of several labels: what decoding walks that says one symbol a frame at most.

A label, too, leads to the next frame: from (t, u) to (t + 1, u + 1), a blank to (t + 1, u), and after the last
frame all labels are said (the "modified" transducer of Kuang et al., arXiv 2206.13236). Read along its diagonals
c = t - u, it is the other lattice, on T - U + 1 columns: a label keeps c, a blank goes on to the next, and
the last column's blank is certain. So `todm.speech.lattice` computes it.
"""

import math

import torch
from torch import Tensor

from todm.speech.collapse import check_lengths
from todm.speech.lattice import lattice_arcs


def single_arcs(collapsed: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """-ln of the summed probability of these alignments, (batch,), and the occupancy of their arcs.

    Takes and returns what `todm.speech.lattice.lattice_arcs` does. An utterance with more labels than frames
    has an infinite loss and no gradient.

    Raises:
        ValueError: a shape or length is wrong.
    """
    batch, time, rows, classes = collapsed.shape
    check_lengths("logit_lengths", logit_lengths, batch, 1, time)
    check_lengths("target_lengths", target_lengths, batch, 0, rows - 1)
    frames, labels = logit_lengths.to(collapsed.device), target_lengths.to(collapsed.device)
    blanks = (frames - labels).clamp(min=0)
    row, columns = torch.arange(rows, device=collapsed.device), int(blanks.max()) + 1 if batch else 1
    frame = torch.arange(columns, device=collapsed.device)[:, None] + row
    slanted = collapsed.gather(1, frame.clamp(max=time - 1)[None, :, :, None].expand(batch, -1, -1, classes))
    said = (frame == frames[:, None, None]) & (row == labels[:, None])[:, None]
    is_blank = torch.arange(classes, device=collapsed.device) == 1
    slanted = slanted.masked_fill(said[..., None] & is_blank, 0.0)
    slanted = slanted.masked_fill((frames < labels)[:, None, None, None], -math.inf)
    loss, arcs = lattice_arcs(slanted, blanks + 1, labels)
    frame = torch.arange(time, device=collapsed.device)[:, None]
    column = frame - row
    upright = arcs.gather(1, column.clamp(0, columns - 1)[None, :, :, None].expand(batch, -1, -1, 2))
    outside = (column < 0) | (column >= columns) | (frame >= frames[:, None, None])
    return loss, upright.masked_fill(outside[..., None], 0.0)
