"""The parity chain: the active subnet, the extracted one and every exported file answer alike on real signals."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from todm.export.bundle import Bundle
from todm.export.calibrate import Call, record
from todm.export.gate import too_costly
from todm.export.parity import compare
from todm.export.quantize import costs
from todm.program import Methods, Program, eager
from todm.space import Arch, activate
from todm.task import Score, Task

CALIBRATION = 200
"""Calls of each method that int8 is calibrated and parity is measured on."""

CARRIED = 4
"""Calls that a bundle carries of each further way to use its program."""


class Chain:
    """The PyTorch program of a subnet, what it says on the test set, and everything else measured against it.

    Args:
        task: Scores programs on its data.
        program: Of an extracted subnet.
    """

    def __init__(self, task: Task, program: Program) -> None:
        self.task, self.program = task, program
        self.references = {variant: self._of(eager(program), variant) for variant in program.ways()}
        # Recorded on the dev set: int8 may be calibrated on it.
        self.calls: dict[str, list[Call]] = {
            variant: record(methods, lambda spied: task.score(program, spied, "dev"), CALIBRATION)
            for variant, methods in self.references.items()
        }
        self.truths: dict[str, Score] = {
            variant: task.score(program, methods, "test") for variant, methods in self.references.items()
        }
        self.default = next(iter(self.references))
        self.metric = next(iter(self.truth.metrics))

    @property
    def truth(self) -> Score:
        """What the default variant says on the test set."""
        return self.truths[self.default]

    def _of(self, methods: Methods, variant: str) -> Methods:
        return {method.name: methods[method.name] for method in self.program.ways()[variant]}

    def recorded(self) -> list[Call]:
        """Real calls of all methods."""
        return [call for calls in self.calls.values() for call in calls]

    def carried(self) -> list[Call]:
        """Those that a bundle carries: all of the default variant, a few of the others."""
        seen: Counter[str] = Counter()
        few = []
        for name, inputs in (
            call for variant, calls in self.calls.items() if variant != self.default for call in calls
        ):
            seen[name] += 1
            few += [(name, inputs)] if seen[name] <= CARRIED else []
        return [*self.calls[self.default], *few]

    def row(self, form: str, variant: str, methods: Methods, size: int | None) -> dict[str, Any]:
        """A row of parity.csv: methods of a variant against the reference of that variant."""
        difference = compare(self.program, self.references[variant], methods, self.calls[variant])
        score = self.task.score(self.program, methods, "test")
        return {
            "form": form if variant == self.default else f"{form} {variant}",
            "max_abs_diff": max(row["max_abs"] for row in difference),
            "max_rel_diff": max(row["max_rel"] for row in difference),
            "outputs_changed": _changed(self.truths[variant], score),
            self.metric: score.metrics[self.metric],
            "size_bytes": size,
        }

    def pytorch_rows(self, supernet: nn.Module, arch: Arch, size: int) -> list[dict[str, Any]]:
        """The supernet with the subnet active, and the subnet in each variant.

        A further variant is compared with the default one: the form that was trained beside the one that streams.
        Their signals may begin and end differently, so the task itself says how far apart they are (`agreement`).
        """
        last = list(self.references)[-1]
        activate(supernet, arch)
        rows = [self.row("supernet", last, self._of(eager(self.task.program(supernet)), last), None)]
        rows[0]["form"] = "supernet"
        for variant, score in self.truths.items():
            largest, relative = 0.0, 0.0
            if variant != self.default:
                largest, relative = self.task.agreement(self.program, eager(self.program), "test")  # type: ignore[attr-defined]
            rows.append({
                "form": "pytorch" if variant == self.default else f"pytorch {variant}",
                "max_abs_diff": largest, "max_rel_diff": relative, "outputs_changed": _changed(self.truth, score),
                self.metric: score.metrics[self.metric], "size_bytes": size,
            })  # fmt: skip
        return rows

    def file_rows(self, bundle: Bundle) -> list[dict[str, Any]]:
        """Every exported file, in each variant."""
        return [
            self.row(
                f"{runtime} {precision}", variant, bundle.methods(runtime, precision, variant=variant),
                bundle.size_bytes(runtime, precision, variant),
            )
            for runtime, entry in bundle.manifest["runtimes"].items()
            for precision in next(iter(entry["variants"].values()))["files"]
            for variant in entry["variants"]
        ]  # fmt: skip

    def int8_loss(self, bundle: Bundle, runtime: str) -> float:
        """Points of the metric that int8 costs on the dev set, the float file of the same runtime being the measure."""

        def error(precision: Any) -> float:
            return self.task.score(self.program, bundle.methods(runtime, precision), "dev").metrics[self.metric]

        return error("int8") - error("float")


def _changed(truth: Score, score: Score) -> int:
    return sum(a != b for a, b in zip(truth.outputs, score.outputs, strict=True))


def within_loss(
    chain: Chain, runtimes: Sequence[str], most: float | None,
    build: Callable[[Mapping[str, frozenset[str]], Bundle | None], Bundle],
) -> Bundle:  # fmt: skip
    """A bundle whose int8 files keep the error budget, with as many layers in float as that takes.

    The costliest layer returns to float first, then two, four, and so on up to half of them. The dev set decides, so
    that the test set stays a test.

    Args:
        most: Points of word error rate that int8 may cost; None, or another metric, is no budget.
        build: Makes the bundle with these layers of each runtime left in float, see `quantize.layers`, given the one
            before it, which has the files that those do not change.

    Raises:
        TodmError: with half of the layers in float it still costs more; says which layer costs what.
    """
    kept: dict[str, frozenset[str]] = {}
    ranked: dict[str, float] = {}
    bundle = None
    while True:
        bundle = build(kept, bundle)
        if most is None or chain.metric != "wer":
            return bundle
        losses = {runtime: chain.int8_loss(bundle, runtime) for runtime in runtimes}
        over = {runtime: loss for runtime, loss in losses.items() if loss > most}
        if not over:
            return bundle
        ranked = ranked or costs(chain.program, chain.recorded())
        for runtime, loss in over.items():
            left = len(kept.get(runtime, ()))
            if max(2 * left, 1) > len(ranked) // 2:
                raise too_costly(runtime, loss, most, left, ranked)
            kept[runtime] = frozenset(list(ranked)[: max(2 * left, 1)])
