"""Early and late dropout (Liu et al. 2023, "Dropout Reduces Underfitting", arXiv 2303.01500): standard dropout in one
part of training only. `schedule.Early` and `schedule.Late` put them under any method, e.g. `drop_path`."""

from todm.dropout.schedule import Early, Late
from todm.dropout.standard import StandardDropout


class EarlyDropout(StandardDropout):
    """From `rate` straight to 0 at update `until`, none after it: it lines the first gradients up, and a net that is
    too small for its data fits it better.

    Args:
        rate: Drop probability at the start.
        until: First update without; by default a sixth of training.
        shared_axis: Axis along which one mask is shared.
    """

    def __init__(self, rate: float = 0.1, until: int | None = None, shared_axis: int | None = None) -> None:
        super().__init__(Early(rate, until), shared_axis)


class LateDropout(StandardDropout):
    """None before update `start`, `rate` from it on, for nets that overfit.

    Args:
        rate: Drop probability.
        start: First update with dropout; by default a sixth of training.
        shared_axis: Axis along which one mask is shared.
    """

    def __init__(self, rate: float = 0.4, start: int | None = None, shared_axis: int | None = None) -> None:
        super().__init__(Late(rate, start), shared_axis)
