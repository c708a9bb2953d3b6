"""Standout: a mask network decides how likely each unit is kept (Ba & Frey, NIPS 2013, "Adaptive dropout for training
deep neural networks").

Masks are Bernoulli(keep) in training, and their expectation, keep itself, in eval; no scaling by 1 / keep anywhere,
exactly as the paper has it. Gradients reach a learnt mask network as if the mask were its keep probability: those of
the expected-mask loss, taken at the sampled activations (the paper's equation 5).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from todm.dropout.site import along_channels
from todm.errors import TodmError
from todm.space import Width, active, full


def masked(x: Tensor, keep: Tensor, uniform: Tensor) -> Tensor:
    """`x` where `uniform` is below `keep`, else 0; the gradient in `keep` is that of x * keep.

    Args:
        x: (...)
        keep: Probabilities that broadcast to the shape of `x`.
        uniform: Numbers in [0, 1), of the shape of `x`.
    """
    mask = (uniform < keep).to(x.dtype)
    return x * (mask + keep - keep.detach())


def standout(x: Tensor, keep: Tensor, training: bool) -> Tensor:
    """One sampled mask in training, its expectation otherwise."""
    # In single precision always: bfloat16 has 256 uniform numbers.
    return masked(x, keep, torch.rand(x.shape, device=x.device)) if training else x * keep


def _start(width: Width, beta: float) -> Tensor:
    """A bias near `beta`, (full width), never exactly zero: ScaledAdam moves a tensor in proportion to its size."""
    return beta + 0.01 * torch.randn(full(width))


class TiedStandout(nn.Module):
    """The mask network has the weights of the layer itself: keep = sigmoid(alpha z + beta), z the preactivation.

    alpha = 0 is dropout with keep sigmoid(beta), without its scaling.

    Args:
        alpha: Slope.
        beta: Offset.
        detach: Take keep as a constant, as the paper trains; else gradients reach the layer through the mask too.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 0.0, detach: bool = True) -> None:
        super().__init__()
        self.alpha, self.beta, self.detach = alpha, beta, detach

    def keep(self, x: Tensor, preactivation: Tensor | None = None, source: Tensor | None = None) -> Tensor:
        """Keep probabilities, of the shape of `x`. A missing preactivation is `x` itself: the same to a rectified
        layer, where they differ only at units that are zero."""
        z = preactivation if preactivation is not None else x
        return torch.sigmoid(self.alpha * (z.detach() if self.detach else z) + self.beta)

    def forward(self, x: Tensor, preactivation: Tensor | None = None) -> Tensor:
        """(...) -> the same shape."""
        return standout(x, self.keep(x, preactivation), self.training)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}, detach={self.detach}"

    def deployed(self) -> nn.Module:
        """Its expectation."""
        return TiedExpectation(self.alpha, self.beta)


class TiedExpectation(nn.Module):
    """What is left of tied standout in a deployed net: x sigmoid(alpha z + beta)."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor, preactivation: Tensor | None = None) -> Tensor:
        z = preactivation if preactivation is not None else x
        return x * torch.sigmoid(self.alpha * z + self.beta)


class LearntStandout(nn.Module):
    """The mask network is a layer of its own beside the one it masks: keep = sigmoid(P s + b), s that layer's input.

    It starts near keep sigmoid(beta) for every unit, with small random weights.

    Args:
        width: Units, the last axis of what is masked.
        source_width: Inputs of the layer, the last axis of its source.
        beta: Offset to start from; 0 keeps half.
    """

    def __init__(self, width: Width, source_width: Width, beta: float = 0.0) -> None:
        super().__init__()
        self.width, self.source_width = width, source_width
        self.weight = nn.Parameter(0.01 * torch.randn(full(width), full(source_width)))
        self.bias = nn.Parameter(_start(width, beta))

    def keep(self, x: Tensor, preactivation: Tensor | None = None, source: Tensor | None = None) -> Tensor:
        """Keep probabilities (..., active width) from the source (..., active source width).

        Raises:
            TodmError: the site is given no source.
        """
        if source is None:
            raise TodmError("learnt standout needs the input of the layer: call site(x, source=...)")
        rows, columns = active(self.width), active(self.source_width)
        return torch.sigmoid(F.linear(source, self.weight[:rows, :columns], self.bias[:rows]))

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """(..., active width), (..., active source width) -> (..., active width)."""
        return standout(x, self.keep(x, source=source), self.training)

    def extra_repr(self) -> str:
        return f"width={self.width}, source_width={self.source_width}"

    def deployed(self) -> nn.Module:
        """Its expectation, at the active widths."""
        rows, columns = active(self.width), active(self.source_width)
        return LearntExpectation(self.weight.detach()[:rows, :columns].clone(), self.bias.detach()[:rows].clone())


class LearntExpectation(nn.Module):
    """What is left of learnt standout in a deployed net: x sigmoid(P s + b)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.network = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        self.network.weight, self.network.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        return x * torch.sigmoid(self.network(source))


class BiasStandout(nn.Module):
    """The mask network is a learnt bias alone: keep = sigmoid(b), one probability a unit, whatever the input.

    Args:
        width: Units: the last axis, or axis 1 of images.
        beta: Bias to start from; 0 keeps half.
    """

    def __init__(self, width: Width, beta: float = 0.0) -> None:
        super().__init__()
        self.width = width
        self.bias = nn.Parameter(_start(width, beta))

    def keep(self, x: Tensor, preactivation: Tensor | None = None, source: Tensor | None = None) -> Tensor:
        """Keep probabilities (active width) for the feature axis of `x`."""
        return along_channels(torch.sigmoid(self.bias[: active(self.width)]).to(x.dtype), x)

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> the same shape."""
        return standout(x, self.keep(x), self.training)

    def extra_repr(self) -> str:
        return f"width={self.width}"

    def deployed(self) -> nn.Module:
        """Its expectation, at the active width."""
        return BiasExpectation(torch.sigmoid(self.bias.detach()[: active(self.width)]))


class BiasExpectation(nn.Module):
    """What is left of bias-only standout in a deployed net: each feature times a constant."""

    constant: Tensor

    def __init__(self, constant: Tensor) -> None:
        super().__init__()
        self.register_buffer("constant", constant)

    def forward(self, x: Tensor) -> Tensor:
        return x * along_channels(self.constant, x)
