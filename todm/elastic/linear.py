"""Linear map and embedding with elastic widths: the first rows and columns of the shared weight."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from todm.space import Width, active, full


def copied(part: Tensor) -> nn.Parameter:
    """A slice as a parameter of its own."""
    return nn.Parameter(part.detach().clone(memory_format=torch.contiguous_format))


class ElasticLinear(nn.Linear):
    """`nn.Linear` from and to elastic widths: (..., active in) -> (..., active out)."""

    def __init__(self, in_features: Width, out_features: Width, bias: bool = True) -> None:
        super().__init__(full(in_features), full(out_features), bias)
        self.width_in = in_features
        self.width_out = out_features

    def _slices(self) -> tuple[Tensor, Tensor | None]:
        rows, columns = active(self.width_out), active(self.width_in)
        return self.weight[:rows, :columns], self.bias[:rows] if self.bias is not None else None

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, *self._slices())

    def plain(self) -> nn.Linear:
        """The active part as an `nn.Linear`."""
        weight, bias = self._slices()
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        linear.weight = copied(weight)
        if bias is not None:
            linear.bias = copied(bias)
        return linear


class ElasticEmbedding(nn.Embedding):
    """`nn.Embedding` of elastic width: indices (...) -> (..., active width)."""

    def __init__(self, num_embeddings: int, width: Width) -> None:
        super().__init__(num_embeddings, full(width))
        self.width = width

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight[:, : active(self.width)])

    def plain(self) -> nn.Embedding:
        """The active part as an `nn.Embedding`."""
        return nn.Embedding.from_pretrained(copied(self.weight[:, : active(self.width)]), freeze=False)
