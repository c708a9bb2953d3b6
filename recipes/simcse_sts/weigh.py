"""Which subwords the embeddings of trained encoders rest on: how far it turns them to leave out a common or a rare one.

python -m todm.recipes.simcse_sts.weigh runs/simcse_sts-table "tier 1: one mask" "tier 1: standard"
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from todm.errors import TodmError, script
from todm.recipes.simcse_sts.sentences import PAD
from todm.recipes.simcse_sts.task import SimCSETask

COMMON, RARE = 2e-3, 1e-4
"""Shares of all subwords of the training sentences: at least, and at most."""
SHORTEST = 6
"""Subwords of a sentence that is looked at."""


@torch.inference_mode()
def turned(encoder: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """For every subword of sentences (n, length): 1 - cosine of the embeddings with it and without it, and which it is.

    Args:
        encoder: Sentences to embeddings (n, width), blind to padding on the right.
    """
    rows = rows[(rows != PAD).sum(1) >= SHORTEST]
    whole, turns, symbols = encoder(rows).float(), [], []
    for place in range(int((rows != PAD).sum(1).max())):
        there = rows[:, place] != PAD
        rest = torch.cat([rows[there, :place], rows[there, place + 1 :]], 1)
        turns.append(1 - F.cosine_similarity(whole[there], encoder(rest).float()))
        symbols.append(rows[there, place])
    return torch.cat(turns), torch.cat(symbols)


def common_and_rare(encoder: nn.Module, task: SimCSETask) -> tuple[float, float]:
    """Mean turn by leaving out a common subword, and a rare one, from the first sentences of the test pairs."""
    counts = torch.bincount(task.sentences[task.sentences != PAD], minlength=len(task.subwords))
    turns, symbols = turned(encoder.eval(), task.rows["test"][0])
    share = (counts / counts.sum())[symbols]
    return float(turns[share >= COMMON].mean()), float(turns[share <= RARE].mean())


@script
def main(arguments: Sequence[str]) -> None:
    """RUN ROW [ROW ...]"""
    from todm.run import Run
    from todm.trained import Trained

    if len(arguments) < 2:
        raise TodmError("type: python -m todm.recipes.simcse_sts.weigh RUN ROW [ROW ...]")
    print(f"{'row':24} {'common':>8} {'rare':>8} {'rare / common':>14} {'seeds':>6}")
    for row in arguments[1:]:
        nets = [Trained(Run.open(folder)) for folder in sorted(Path(arguments[0], row).glob("seed*"))]
        if not nets:
            raise TodmError(f"{arguments[0]} holds no row {row!r}; train it with `todm compare simcse_sts`")
        common, rare = zip(*(common_and_rare(one.supernet, one.task) for one in nets), strict=True)
        ratio = mean(b / a for a, b in zip(common, rare, strict=True))
        print(f"{row:24} {mean(common):8.4f} {mean(rare):8.4f} {ratio:14.2f} {len(nets):6}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
