"""What an exported file may differ by: a gate that files pass before anyone sees them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from todm.errors import TodmError


@dataclass(frozen=True)
class Gate:
    """Limits on the rows of parity.csv; None does not limit."""

    max_difference: float | None = 1e-3
    """Largest difference of a float form's outputs from PyTorch's, relative to the largest value."""
    max_changed: float | None = 0.5
    """Percent of the decisions that a float form may change; one of them is always allowed."""

    def check(self, rows: Sequence[Mapping[str, Any]], decisions: int) -> None:
        """Pass or say what is wrong.

        Args:
            rows: Of parity.csv; those in int8 and int4 are judged by their error rate, not here.
            decisions: Number of samples that were decided on.

        Raises:
            TodmError: a form is another model than the PyTorch one.
        """
        for row in rows:
            if {"int8", "int4"}.intersection(row["form"].split()):
                continue
            difference, changed = row["max_rel_diff"], row["outputs_changed"]
            if self.max_difference is not None and not difference <= self.max_difference:
                raise TodmError(
                    f"broken parity: {row['form']} differs from PyTorch by {difference:.2g} of the largest value, "
                    f"{self.max_difference:g} is allowed; report it, or raise export.max_difference"
                )
            if self.max_changed is not None and changed > max(1, math.ceil(self.max_changed * decisions / 100)):
                raise TodmError(
                    f"broken parity: {row['form']} decides {changed} of {decisions} samples differently than PyTorch, "
                    f"{self.max_changed:g} % are allowed; report it, or raise export.max_changed"
                )


def too_costly(runtime: str, loss: float, most: float, kept: int, costs: Mapping[str, float]) -> TodmError:
    """The error of an int8 file that loses too much, with what each layer costs."""
    listed = ", ".join(f"{name} {cost:.2g}" for name, cost in list(costs.items())[:12])
    return TodmError(
        f"{runtime} int8 costs {loss:.2f} points of wer on the dev set, --max-wer-loss allows {most:g}, even with "
        f"the {kept} costliest layers in float; error that int8 in one layer makes: {listed}; raise --max-wer-loss "
        "or export float only"
    )
