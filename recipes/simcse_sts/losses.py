"""What sentence embeddings are trained with, and judged by."""

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F


def similarities(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Cosine of every row of `first` (n, width) with every row of `second` (m, width) over the temperature: (n, m)."""
    return F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T / temperature


def simcse_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean of -log softmax of each row's own pair among all second rows (Gao et al. 2021, arXiv 2104.08821, eq. 1).

    Args:
        first: (n, width) embeddings.
        second: (n, width) embeddings of the same sentences, or of what belongs to them.
        temperature: Divides the cosines.
    """
    return F.cross_entropy(similarities(first, second, temperature), torch.arange(len(first), device=first.device))


def cosine_loss(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of the cosine of each pair (n, width) from its target (n,) in [0, 1]
    (Reimers & Gurevych 2019, arXiv 1908.10084, section 3)."""
    return F.mse_loss(F.cosine_similarity(first, second), target)


def rank_correlation(predicted: Tensor, scores: Tensor) -> float:
    """Spearman's: Pearson's correlation of the ranks, equal values sharing their mean rank. Both (pairs,)."""
    return float(spearmanr(predicted, scores).statistic)
