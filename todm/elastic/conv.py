"""Convolutions with elastic channels, dense or depthwise."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from todm.elastic.linear import copied
from todm.space import Width, active, full

Size = int | tuple[int, int]


class _ElasticConv:
    """What the convolutions share: the first channels of the weight, with groups that follow the width."""

    weight: Tensor
    bias: Tensor | None
    stride: Any
    padding: Any
    dilation: Any
    channels_in: Width
    channels_out: Width
    depthwise: bool

    def _slices(self) -> tuple[Tensor, Tensor | None, int]:
        rows, columns = active(self.channels_out), active(self.channels_in)
        weight = self.weight[:rows] if self.depthwise else self.weight[:rows, :columns]
        return weight, self.bias[:rows] if self.bias is not None else None, rows if self.depthwise else 1

    def _plain(self, kind: type[nn.Module]) -> Any:
        weight, bias, groups = self._slices()
        channels_in = weight.shape[1] * groups
        conv: Any = kind(
            channels_in, weight.shape[0], weight.shape[2:], self.stride, self.padding, self.dilation, groups,
            bias is not None, device="meta",
        )  # fmt: skip
        conv.weight = copied(weight)
        if bias is not None:
            conv.bias = copied(bias)
        return conv


class ElasticConv1d(_ElasticConv, nn.Conv1d):  # type: ignore[misc]
    """`nn.Conv1d` with elastic channels: (batch, active in, time) -> (batch, active out, time').

    With `depthwise` every channel has its own filter, and `channels` in and out are the same width.
    """

    def __init__(
        self, channels_in: Width, channels_out: Width, kernel_size: int, stride: int = 1, padding: int | str = 0,
        dilation: int = 1, depthwise: bool = False, bias: bool = True,
    ) -> None:  # fmt: skip
        groups = full(channels_out) if depthwise else 1
        nn.Conv1d.__init__(
            self, full(channels_in), full(channels_out), kernel_size, stride, padding, dilation, groups, bias
        )
        self.channels_in, self.channels_out, self.depthwise = channels_in, channels_out, depthwise

    def forward(self, input: Tensor) -> Tensor:
        weight, bias, groups = self._slices()
        return F.conv1d(input, weight, bias, self.stride, self.padding, self.dilation, groups)

    def plain(self) -> nn.Conv1d:
        """The active part as an `nn.Conv1d`."""
        return self._plain(nn.Conv1d)


class ElasticConv2d(_ElasticConv, nn.Conv2d):  # type: ignore[misc]
    """`nn.Conv2d` with elastic channels: (batch, active in, height, width) -> (batch, active out, ...).

    With `depthwise` every channel has its own filter, and `channels` in and out are the same width.
    """

    def __init__(
        self, channels_in: Width, channels_out: Width, kernel_size: Size, stride: Size = 1,
        padding: Size | str = 0, dilation: Size = 1, depthwise: bool = False, bias: bool = True,
    ) -> None:  # fmt: skip
        groups = full(channels_out) if depthwise else 1
        nn.Conv2d.__init__(  # type: ignore[arg-type]
            self, full(channels_in), full(channels_out), kernel_size, stride, padding, dilation, groups, bias
        )
        self.channels_in, self.channels_out, self.depthwise = channels_in, channels_out, depthwise

    def forward(self, input: Tensor) -> Tensor:
        weight, bias, groups = self._slices()
        return F.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, groups)

    def plain(self) -> nn.Conv2d:
        """The active part as an `nn.Conv2d`."""
        return self._plain(nn.Conv2d)
