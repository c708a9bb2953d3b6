"""When symbols are said: a transducer does not mind how late they come, and one that learns to say them early guesses.

Kang et al., "Delay-penalized transducer for low-latency streaming ASR" (arXiv 2211.00490), add a constant times
(T / 2 - t) to the normalised log-probabilities of symbols, which penalises their mean delay. There it makes them come
earlier; with the sign turned they wait for more of the word, and errors fall.
"""

import torch
from torch import Tensor


def penalise_delay(collapsed: Tensor, lengths: Tensor, penalty: float) -> Tensor:
    """A lattice in which saying a label costs `penalty` for each frame after the middle of the utterance.

    An alignment's log-probability changes by -penalty * sum over its labels of (t - (frames - 1) / 2): measured from
    the middle, an alignment of evenly spread labels stays as it is.

    Args:
        collapsed: (batch, time, labels + 1, 3), as `todm.speech.collapse` gives them.
        lengths: (batch,) frames of each utterance.
        penalty: Nats a frame; below zero, later symbols are preferred.
    """
    frames = torch.arange(collapsed.shape[1], dtype=collapsed.dtype, device=collapsed.device)
    late = frames - (lengths.to(frames)[:, None] - 1) / 2
    cost = torch.zeros_like(collapsed[:, :, :1])
    cost[..., 0] = penalty * late[..., None]
    return collapsed - cost
