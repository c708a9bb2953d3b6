"""Curriculum dropout (Morerio et al. 2017, arXiv 1703.06229; used at both tiers by 2-Tier SimCSE): standard dropout
whose noise grows from none, so that early training sees the easy task.

`schedule.Curriculum` puts it under any method.
"""

from todm.dropout.schedule import AntiCurriculum, Curriculum, Switch
from todm.dropout.standard import StandardDropout


class CurriculumDropout(StandardDropout):
    """keep(t) = (1 - keep) exp(-gamma t) + keep at update t.

    Args:
        keep: Limit of the keep probability.
        gamma: Speed; by default 10 / total updates.
        shared_axis: Axis along which one mask is shared.
    """

    def __init__(self, keep: float = 0.5, gamma: float | None = None, shared_axis: int | None = None) -> None:
        super().__init__(Curriculum(keep, gamma), shared_axis)


class AntiCurriculumDropout(StandardDropout):
    """The control that starts with all the noise and ends without: keep(t) = 1 - (1 - keep) exp(-gamma t).

    Args:
        keep: Keep probability at the start.
        gamma: Speed; by default 10 / total updates.
        shared_axis: Axis along which one mask is shared.
    """

    def __init__(self, keep: float = 0.5, gamma: float | None = None, shared_axis: int | None = None) -> None:
        super().__init__(AntiCurriculum(keep, gamma), shared_axis)


class SwitchDropout(StandardDropout):
    """The control that switches all the noise on at once.

    Args:
        keep: Keep probability from then on.
        step: First update with noise; by default half of training.
        shared_axis: Axis along which one mask is shared.
    """

    def __init__(self, keep: float = 0.5, step: int | None = None, shared_axis: int | None = None) -> None:
        super().__init__(Switch(keep, step), shared_axis)
