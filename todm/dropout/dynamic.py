"""Dynamic dropout (Yan & Shao 2024, arXiv 2411.03236): standard dropout at a rate that training or validation moves.
The schedules go under any other method as well."""

from typing import Literal

from todm.dropout.schedule import Cosine, Exponential, Linear, OnValidation, Schedule
from todm.dropout.standard import StandardDropout


class DynamicDropout(StandardDropout):
    """The rate goes from `start` to `end` over training, or follows the validation loss between them.

    Args:
        curve: `linear`, `exponential`, `cosine`, or `validation`: times 0.9 at every evaluation that improves on the
            best loss, divided by it at every other.
        start: Rate at the start.
        end: Rate at the end; for `validation` the least.
        shared_axis: Axis along which one mask is shared.
    """

    def __init__(
        self, curve: Literal["linear", "exponential", "cosine", "validation"] = "validation", start: float = 0.2,
        end: float = 0.01, shared_axis: int | None = None,
    ) -> None:  # fmt: skip
        curves: dict[str, type[Schedule]] = {"linear": Linear, "exponential": Exponential, "cosine": Cosine}
        if curve == "validation":
            schedule: Schedule = OnValidation(start, low=end, high=max(start, 0.5))
        elif curve in curves:
            schedule = curves[curve](start, end)  # type: ignore[call-arg]
        else:
            raise ValueError(f"curve must be linear, exponential, cosine or validation, got {curve!r}")
        super().__init__(schedule, shared_axis)
