"""Methods that act on the weights of a layer: what they share, and what training does with them.

They are parametrisations (torch.nn.utils.parametrize): in training the layer computes with `noisy(weight)`, in eval
with `settled(weight)`, which is all that extraction keeps.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from todm.space import Width, active


class WeightMethod(nn.Module):
    """A method placed at `weights:PATH`.

    Args:
        widths: The (elastic) sizes of the weight's first axes: out, in.
    """

    def __init__(self, widths: Sequence[Width] = ()) -> None:
        super().__init__()
        self.widths = tuple(widths)

    def in_use(self, weight: Tensor) -> Tensor:
        """The part of a full-size tensor that the active subnet uses; an axis of size 1 stays."""
        return weight[tuple(slice(active(width)) for width in self.widths)]

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in, ...) -> the same shape."""
        return self.noisy(weight) if self.training else self.settled(weight)

    def noisy(self, weight: Tensor) -> Tensor:
        """What the layer computes with in training."""
        return weight

    def settled(self, weight: Tensor) -> Tensor:
        """What it computes with in eval and once deployed."""
        return weight

    def weight_penalty(self, weight: Tensor) -> Tensor | None:
        """The method's term of the loss on the weights in use, a scalar; None if it has none."""
        return None

    def after_weight_step(self, weight: nn.Parameter, step: Tensor | float) -> None:
        """What is done once the optimiser has moved the weight.

        Args:
            step: Step size of each weight (of the shape of `weight`, or one for all).
        """
