"""Variants of one recipe side by side: every row trained with every seed, tested, and set against a baseline.

A recipe's `compare.yaml` names the rows, each a set of changes to the recipe. One training is one run folder,
OUT/ROW/seedN, which keeps its result in result.json: a comparison that was killed goes on where it was, and
several processes may each take some rows of one folder. What was trained with other settings is never taken over.
"""

import csv
import io
import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pydantic.dataclasses import dataclass
from scipy.stats import t as student_t

from todm.errors import TodmError
from todm.files import atomic_write, read_json, write_json
from todm.recipe import STRICT, Count, Recipe, build, load_recipe, merged, read_yaml, task_class
from todm.run import Run

RESULT = "result.json"


@dataclass(frozen=True, config=STRICT)
class Comparison:
    """What compare.yaml holds."""

    rows: dict[str, dict[str, Any]]
    """Changes to the recipe by the name of the row."""
    baseline: str
    """Row that the others are set against, seed by seed."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Changes common to all rows."""
    quick: dict[str, Any] = field(default_factory=dict)
    """Further changes with --quick, to show that everything runs."""
    seeds: Count = 3
    """Trainings of each row."""
    best: bool = False
    """Also tabulate the best dev value of the first metric while training, and the update it was reached at."""

    def __post_init__(self) -> None:
        if self.baseline not in self.rows:
            raise ValueError(f"baseline {self.baseline!r} is not one of the rows: {', '.join(self.rows)}")


def load_comparison(home: Path) -> Comparison:
    """The compare.yaml of a recipe's folder.

    Raises:
        TodmError: there is none, or it is not valid.
    """
    path = home / "compare.yaml"
    return build(Comparison, read_yaml(path), str(path))


def compare(
    recipe: str, out: Path, *, rows: Sequence[str] = (), seeds: int | None = None, quick: bool = False,
    data: str | None = None, overrides: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train and test what is missing; write results.csv and table.md; returns the table.

    Args:
        rows: Names of the rows to train, by default all.
        seeds: Trainings of each row, by default as compare.yaml says.
        quick: With its quick changes.
        data: Folder of the data, where the recipe's data have a `folder`.
        overrides: Changes to all rows, over those of compare.yaml.

    Raises:
        TodmError: an unknown row, a result of other settings in its place, or what training raises.
    """
    base, home = load_recipe(recipe)
    plan = load_comparison(home)
    for row in rows:
        if row not in plan.rows:
            raise TodmError(f"no row {row!r} in {home / 'compare.yaml'}; it has: {', '.join(plan.rows)}")
    folder = {"data": {"folder": data}} if data else {}
    for seed in range(base.seed, base.seed + (seeds or plan.seeds)):
        for row in rows or plan.rows:
            changes: dict[str, Any] = {}
            layers = (plan.settings, plan.rows[row], plan.quick if quick else {}, folder, overrides or {})
            for layer in (*layers, {"seed": seed}):
                changes = merged(changes, layer)
            _train(recipe, row, out / row / f"seed{seed}", changes, plan.best)
    results = collect(out, plan.rows)
    table = summarise(results, plan.baseline)
    atomic_write(out / "results.csv", _as_csv(results))
    atomic_write(out / "table.md", as_markdown(table))
    return table


def _train(recipe: str, row: str, folder: Path, changes: dict[str, Any], best: bool) -> None:
    """One training, unless its result is there."""
    from todm import verbs

    if (folder / "recipe.yaml").exists() or (folder / RESULT).exists():
        _check_settings(row, folder, *load_recipe(recipe, changes))
    if (folder / RESULT).exists():
        return
    trained = verbs.train(recipe, str(folder), resume="auto", overrides=changes)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    result = {"test": trained["test"], "dev": trained["dev"], "seconds": seconds_of(log)}
    write_json(folder / RESULT, result | ({"best": best_on_dev(log)} if best else {}))


def seconds_of(log: Sequence[dict[str, Any]]) -> float:
    """Seconds of training over all sessions of a run: the clock of its log starts anew where it went on."""
    clock = [row["seconds"] for row in log]
    return sum(now for now, then in zip(clock, [*clock[1:], 0.0], strict=True) if then < now)


def _check_settings(row: str, folder: Path, asked: Recipe, home: Path) -> None:
    """Make sure that a row's folder was trained as is asked now.

    Raises:
        TodmError: it was not; names the first setting that differs.
    """
    was = _trained_by(Run.open(folder).recipe, home, str(folder / "recipe.yaml"))
    now = _trained_by(asked, home, f"recipe {asked.name!r}")
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            raise TodmError(
                f"row {row!r} was trained in {folder} with {name} {was.get(name, 'unset')}, which is now "
                f"{now.get(name, 'unset')}; choose another --out, or type: rm -r {shlex.quote(str(folder))}"
            )


def _trained_by(recipe: Recipe, home: Path, where: str) -> dict[str, Any]:
    """All settings that a training depends on by their dotted names, defaults written out."""
    kind = task_class(recipe, home)
    parts = {"seed": recipe.seed, "task": recipe.task, "dropout": recipe.dropout, "training": asdict(recipe.training)}
    for name, declared in (("data", kind.Data), ("model", kind.Model)):
        parts[name] = asdict(build(declared, getattr(recipe, name), f"{where}: {name}"))
    return dict(_dotted("", parts))


def _dotted(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _dotted(f"{path}.{key}" if path else key, item)
    else:
        yield path, value


def best_on_dev(log: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each net evaluated while training, the best dev value of the first metric and the update it came at."""
    scores = [(row["update"], row["dev"]) for row in log if "dev" in row]
    best = {}
    for net, metrics in scores[-1][1].items():
        name = next(iter(metrics))
        update, score = min(scores, key=lambda scored: scored[1][net][name])
        best[net] = {f"best dev {name}": score[net][name], "at update": update}
    return best


def collect(out: Path, rows: Sequence[str] | dict[str, Any]) -> list[dict[str, Any]]:
    """What is there: one result for every row, seed and evaluated net, test metrics by their names."""
    results = []
    for row in rows:
        paths = (out / row).glob(f"seed*/{RESULT}")
        for path in sorted(paths, key=lambda path: int(path.parent.name.removeprefix("seed"))):
            result = read_json(path)
            for net, metrics in result["test"].items():
                seed = int(path.parent.name.removeprefix("seed"))
                best = result.get("best", {}).get(net, {})
                results.append({"row": row, "net": net, "seed": seed, **metrics, **best, "seconds": result["seconds"]})
    return results


def summarise(results: Sequence[dict[str, Any]], baseline: str) -> list[dict[str, Any]]:
    """Mean, standard deviation and, per seed, difference from the baseline with its 95 % interval (Student's t)."""
    cells: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for result in results:
        cells[result["row"], result["net"]][result["seed"]] = result
    table = []
    for (row, net), by_seed in cells.items():
        line: dict[str, Any] = {"row": row, "net": net, "seeds": len(by_seed)}
        reference = cells.get((baseline, net), {})
        for metric in (key for key in next(iter(by_seed.values())) if key not in ("row", "net", "seed", "seconds")):
            values = [result[metric] for result in by_seed.values()]
            line |= {metric: mean(values), f"{metric}_sd": stdev(values) if len(values) > 1 else None}
            pairs = [by_seed[seed][metric] - reference[seed][metric] for seed in by_seed if seed in reference]
            if row != baseline and pairs:
                half = student_t.ppf(0.975, len(pairs) - 1) * stdev(pairs) / len(pairs) ** 0.5 if pairs[1:] else None
                line |= {f"{metric}_difference": mean(pairs), f"{metric}_interval": half}
        table.append(line | {"seconds": mean(result["seconds"] for result in by_seed.values())})
    return table


def as_markdown(table: Sequence[dict[str, Any]]) -> str:
    """The table for people: mean ± sd, and difference from the baseline ± half of its 95 % interval."""
    known = {"row", "net", "seeds", "seconds"}
    metrics = [k for k in table[0] if k not in known and not k.endswith(("_sd", "_difference", "_interval"))]
    nets = len({line["net"] for line in table}) > 1
    head = ["row", *(["net"] if nets else []), *metrics, *(f"{m}: difference" for m in metrics), "seeds", "seconds"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for line in table:
        cells = [line["row"], *([line["net"]] if nets else [])]
        cells += [_with_spread(line[m], line[f"{m}_sd"]) for m in metrics]
        cells += [_with_spread(line.get(f"{m}_difference"), line.get(f"{m}_interval"), "+") for m in metrics]
        lines.append("| " + " | ".join([*cells, str(line["seeds"]), f"{line['seconds']:.0f}"]) + " |")
    return "\n".join(lines) + "\n"


def _with_spread(value: float | None, spread: float | None, sign: str = "") -> str:
    if value is None:
        return ""
    return f"{value:{sign}.4g}" + (f" ± {spread:.2g}" if spread is not None else "")


def _as_csv(results: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in results for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    return text.getvalue()
