"""The places of a model where dropout may act."""

import inspect

from torch import Tensor, nn

from todm.errors import TodmError
from todm.space import Width, active


class Site(nn.Module):
    """Identity until a recipe's `dropout:` block, or `todm.dropout.install`, puts a method in.

    Args:
        name: What the recipe calls it; several sites may share a name, and each gets a method of its own.
        width: The (elastic) size of the feature axis of what passes: the last one, or axis 1 of images and attention
            weights (four axes). It sizes parameters and drives adaptive width.
        shared_axis: Axis along which one mask is shared, e.g. 1 (time) of (batch, time, features).
        source_width: The (elastic) size of `source`, where the site is given one.
    """

    method: nn.Module | None

    def __init__(
        self, name: str, width: Width | None = None, shared_axis: int | None = None, source_width: Width | None = None
    ) -> None:
        super().__init__()
        self.name, self.width, self.shared_axis, self.source_width = name, width, shared_axis, source_width
        self.put(None)

    def put(self, method: nn.Module | None) -> None:
        """Let `method` act here; it gets those of `preactivation` and `source` that its `forward` names."""
        self.method = method
        wanted = inspect.signature(method.forward).parameters if method is not None else {}
        self._wants = tuple(name for name in ("preactivation", "source") if name in wanted)

    def forward(self, x: Tensor, preactivation: Tensor | None = None, source: Tensor | None = None) -> Tensor:
        """
        Args:
            x: The activation.
            preactivation: What the nonlinearity saw, of the shape of `x`.
            source: The input of the layer that made it: (..., source width).
        """
        if self.method is None:
            return x
        given = {"preactivation": preactivation, "source": source}
        return self.method(x, **{name: given[name] for name in self._wants})

    def fused(self) -> float:
        """The drop probability now, for an operator with dropout inside such as `scaled_dot_product_attention`.

        Raises:
            TodmError: the method is more than independent dropout.
        """
        if self.method is None or not self.training:
            return 0.0
        if not hasattr(self.method, "probability"):
            kind = type(self.method).__name__
            raise TodmError(f"{kind} cannot act inside the fused operator of site {self.name!r}; take standard dropout")
        return float(self.method.probability())  # type: ignore[operator]

    def extra_repr(self) -> str:
        return repr(self.name)

    def plain(self) -> "Site":
        """What a deployed net keeps: the method's part in inference if it has one (`deployed`), else nothing."""
        width = None if self.width is None else active(self.width)
        site = Site(self.name, width, self.shared_axis)
        if self.method is not None and hasattr(self.method, "deployed"):
            site.put(self.method.deployed())  # type: ignore[operator]
        return site


def channel_axis(x: Tensor) -> int:
    """Where the features are: axis 1 of images and attention weights (four axes), else the last."""
    return 1 if x.ndim == 4 else x.ndim - 1


def along_channels(values: Tensor, x: Tensor) -> Tensor:
    """One value a feature, (features), in a shape that broadcasts along the feature axis of `x`."""
    return values.reshape(-1, 1, 1) if x.ndim == 4 else values
