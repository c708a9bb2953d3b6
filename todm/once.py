"""What all nets of an update compute alike, such as a front end without choices, is computed once for all of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Source = tuple[Tensor | int, ...]


@dataclass
class _Kept:
    source: Source
    output: Tensor
    leaf: Tensor
    """The output cut off from its graph: each net's backward pass ends here and adds up its gradient."""


class Once:
    """A function that, within `computed_once`, runs once and takes its gradient back once.

    Args:
        function: Of tensors and integers, which are all that its value, a tensor, depends on but for weights; the same
            for all nets and without random numbers. Outside `computed_once` it is called as it is.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.keeps = False
        self.kept: _Kept | None = None

    def __call__(self, *source: Tensor | int) -> Tensor:
        if not self.keeps:
            return self.function(*source)
        if self.kept is None or not all(map(_alike, self.kept.source, source)):
            self.flush()
            output = self.function(*source)
            self.kept = _Kept(source, output, output.detach().requires_grad_(output.requires_grad))
        return self.kept.leaf

    def flush(self) -> None:
        """Send the gradient that has been added up through the function, and forget what was kept."""
        kept, self.kept = self.kept, None
        if kept is not None and kept.leaf.grad is not None:
            kept.output.backward(kept.leaf.grad)


def _alike(a: Tensor | int, b: Tensor | int) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return bool(a == b)


@contextmanager
def computed_once(model: nn.Module) -> Iterator[None]:
    """Within, each `Once` that a layer of the model holds keeps its output; at the end the gradients go through."""
    found = [value for layer in model.modules() for value in vars(layer).values() if isinstance(value, Once)]
    for once in found:
        once.keeps = True
    try:
        yield
        for once in found:
            once.flush()
    finally:
        for once in found:
            once.keeps, once.kept = False, None
