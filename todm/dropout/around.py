"""Dropout beside layers that know nothing of it: a model's own code stays as it is."""

from typing import Any

from torch import Tensor, nn

from todm.dropout.site import Site


class _Wrapper(nn.Module):
    """A layer and a site; attributes that are asked for by name, such as `weight`, are the layer's."""

    layer: nn.Module
    site: Site

    def __init__(self, layer: nn.Module, site: Site) -> None:
        super().__init__()
        self.layer, self.site = layer, site

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def plain(self) -> nn.Module:
        """The layer alone, unless the method has a part in inference; the site is plain already, as children are."""
        return self if self.site.method is not None else self.layer


class Before(_Wrapper):
    """Dropout on the first input of a layer; the others pass."""

    def forward(self, x: Tensor, *others: Any, **named: Any) -> Any:
        return self.layer(self.site(x), *others, **named)


class After(_Wrapper):
    """Dropout on the output of a layer, one tensor."""

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        return self.site(self.layer(*inputs, **named))


class Inside(_Wrapper):
    """Dropout of `nn.MultiheadAttention`, which applies it to the attention weights in a fused operator.

    The layer holds its rate as a number; it is renewed at every call, so that a schedule reaches it.
    """

    layer: nn.MultiheadAttention

    def forward(self, *inputs: Any, **named: Any) -> Any:
        self.layer.dropout = self.site.fused()
        return self.layer(*inputs, **named)

    def plain(self) -> nn.Module:
        """The layer without dropout."""
        self.layer.dropout = 0.0
        return self.layer
