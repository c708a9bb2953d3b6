"""Concrete dropout: the drop probability is learnt (Gal, Hron & Kendall 2017, arXiv 1705.07832)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from todm.space import Width, active


class ConcreteDropout(nn.Module):
    """Dropout relaxed to a differentiable mask (the paper's equation 5), with a learnt probability p for the site.

    Its loss term is that of the entropy, -scale K H(p) for K features: it pulls p towards 1/2 against the loss on the
    data. The paper's other term, on the norm of the weights behind, is the optimiser's weight decay.

    Args:
        width: Features K.
        rate: p to start from.
        scale: Weight of the entropy; 2 / (precision times the number of training samples) in the paper.
        temperature: Of the relaxation.
    """

    def __init__(self, width: Width, rate: float = 0.1, scale: float = 1e-5, temperature: float = 0.1) -> None:
        super().__init__()
        if not 0 < rate < 1:
            raise ValueError(f"the rate to start from must be between 0 and 1, got {rate}")
        self.width, self.scale, self.temperature = width, scale, temperature
        self.logit = nn.Parameter(torch.tensor(rate).logit())

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> the same shape."""
        if not self.training:
            return x
        u = torch.rand(x.shape, device=x.device).clamp(1e-6, 1 - 1e-6)
        drop = torch.sigmoid((self.logit + u.logit()) / self.temperature)
        return x * ((1 - drop) / torch.sigmoid(-self.logit)).to(x.dtype)

    def penalty(self) -> Tensor:
        """The negative entropy, a scalar."""
        p = torch.sigmoid(self.logit)
        negative_entropy = p * F.logsigmoid(self.logit) + (1 - p) * F.logsigmoid(-self.logit)
        return self.scale * active(self.width) * negative_entropy

    def extra_repr(self) -> str:
        return f"rate={torch.sigmoid(self.logit.detach()).item():.3g}, scale={self.scale}"
