"""The report of a run folder: one self-contained page, a table for the terminal, a picture for a README."""

import math
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, Template

from todm.errors import TodmError
from todm.export.charts import Point, axis, thin, unbeaten
from todm.export.runfiles import Row, arch_words, csv_rows, json_numbers, log_lines
from todm.files import atomic_write

_KNOWN = re.compile("^(subnet|device|runtime|precision|cpu|threads|params|macs|rtf)$|_(ms|bytes)$")
_LABELS = {"params": "parameters", "macs": "MACs", "rtf": "real-time factor", "peak_rss_bytes": "peak RSS"}
_LABELS |= {"max_abs_diff": "largest difference", "max_rel_diff": "largest relative difference"}
_LABELS |= {"arch": "architecture", "load_ms": "load time", "size_bytes": "file size"}
_LABELS |= {"cpu": "CPU", "os": "OS", "mape": "mean error"}
_TIP = ("size_bytes", "latency_p90_ms", "rtf", "peak_memory_bytes", "params", "macs", "arch")


def write_report(run: Path | str) -> Path:
    """Write `report.html` into a run folder and return its path. A part the run lacks becomes a note.

    Raises:
        TodmError: there is no `run.json`, a file of the run is damaged, or the folder cannot be written.
    """
    return atomic_write(Path(run) / "report.html", _template().render(data=_Data(Path(run))))


def picture(run: Path | str) -> bytes:
    """A still SVG of the front, error against file size of every exported file, for a README.

    Raises:
        TodmError: as `write_report`, or no exported file was measured yet.
    """
    data = _Data(Path(run)).measured()
    module: Any = _template().make_module({"data": data})
    return str(module.picture(data.scatter("bench", ("size_bytes",), data.metric)[0])).strip().encode()


def table(run: Path | str) -> str:
    """The exported files as aligned plain text, at most 110 columns wide, smallest subnet first.

    Raises:
        TodmError: as `write_report`, or no exported file was measured yet.
    """
    data = _Data(Path(run)).measured()
    titles = {
        "family": "file",
        "size_bytes": "size",
        data.metric: data.label(data.metric),
        "params": "params",
    }
    titles |= {"latency_p90_ms": "p90", "rtf": "rtf", "peak_memory_bytes": "peak memory"}
    found = data.columns(data.bench, titles)
    columns = [[f"{titles[c['key']]} {c['unit']}".strip(), *c["texts"]] for c in found]
    room = max(12, 108 - sum(max(map(len, column)) + 2 for column in columns))
    names = ["".join(c if c.isprintable() else "?" for c in row["subnet"]) for row in data.bench]
    names = [n if len(n) <= room else f"{n[: room // 2]}…{n[-((room - 1) // 2) :]}" for n in names]
    columns.insert(0, ["subnet", *("" if i and names[i - 1] == n else n for i, n in enumerate(names))])
    for index, column in enumerate(columns):
        align = str.ljust if index < 2 else str.rjust
        columns[index] = [align(text, max(map(len, column))) for text in column]
    lines = ["  ".join(cells) for cells in zip(*columns, strict=True)]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


class _Data:
    """What a run folder holds, joined by subnet, with the names and units of its numbers and their charts."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "run.json").exists():
            raise TodmError(f"{folder} is no run folder: no run.json; type: todm run digits --out {folder}")
        self.folder, self.run, self.log = (
            folder,
            json_numbers(folder / "run.json"),
            log_lines(folder / "log.jsonl"),
        )
        self.bench = csv_rows(folder / "bench.csv", {"subnet", "runtime", "precision"})
        self.parity = csv_rows(folder / "parity.csv", {"subnet", "form"})
        self.search, self.guesses = csv_rows(folder / "search/front.csv", {"arch"}), []
        for name, row in json_numbers(folder / "search/predictor.json").items():
            mape = row["mape"] if "mape" in row else 100 * row["error"]
            self.guesses.append({"quantity": name, "mape": mape, "rank_correlation": row["rank_correlation"]})
        self.subnets, self.scores = [], dict[str, None]()
        for path in sorted(folder.glob("subnets/*/metrics.json")):
            row = json_numbers(path)
            scores = {f"{k} ({s})": v for s in ("test", "dev") for k, v in row.get(s, {}).items()}
            row |= {"subnet": path.parent.name, "arch": arch_words(json_numbers(path.with_name("arch.json")))}
            self.subnets.append(row | scores | {"heard": any(path.parent.glob("bundle/**/tokens.txt"))})
            self.scores |= dict.fromkeys(scores)
        logged = [key for row in self.log for score in row.get("dev", {}).values() for key in score]
        benched = [k for row in self.bench for k, v in row.items() if v is not None and not _KNOWN.search(k)]
        self.metric = [*self.scores, *logged, *benched, "error"][0].partition(" (")[0]
        self._join()

    def _join(self) -> None:
        """Give every row what only its neighbours know: architecture, error, family, change by export."""
        known = {row["subnet"]: row for row in self.subnets}
        errors: dict[Any, Any] = {(row["subnet"], row["form"]): row.get(self.metric) for row in self.parity}
        self.devices = sorted({row["device"] for row in self.bench if row.get("device")})
        kinds = sorted({(row["runtime"], row.get("device", "")) for row in self.bench})
        precisions = sorted({row["precision"] for row in self.bench})
        for row in self.bench:
            form, subnet = f"{row['runtime']} {row['precision']}", known.get(row["subnet"], {})
            row["family"] = f"{form} · {row['device']}" if len(self.devices) > 1 else form
            kind = kinds.index((row["runtime"], row.get("device", "")))
            row["style"] = [kind, precisions.index(row["precision"])]
            other = {key: subnet.get(key) for key in ("params", "macs", "arch")}
            for key, value in (other | {self.metric: errors.get((row["subnet"], form))}).items():
                row[key] = value if row.get(key) is None else row[key]
        for row in self.parity:
            before: Any = None if row["form"] == "pytorch" else errors.get((row["subnet"], "pytorch"))
            after: Any = row.get(self.metric)
            row[f"{self.metric} (change)"] = None if None in (before, after) else round(after - before, 9)
        for index, row in enumerate(self.search, start=1):
            front = row.get("front", 1.0) == 1.0
            row |= {"subnet": f"candidate {index}", "family": "on the front" if front else "candidate"}
            row |= {
                "style": [0, 0] if front else [4, 1],
                f"{self.metric} (dev)": row.get(self.metric, row.get(f"{self.metric}_int8")),
            }
        self.bench.sort(key=lambda row: (row["params"] or 0.0, row["subnet"], row["family"]))
        self.subnets.sort(key=lambda row: row.get("params") or 0.0)

    def measured(self) -> "_Data":
        """Itself, when there is an exported file to show."""
        if not self.scatter("bench", ("size_bytes",), self.metric):
            raise TodmError(f"{self.folder} has no measured file with its error yet; type: {self.make()}")
        return self

    def least(self, key: str) -> Row | None:
        """The exported file with the smallest value, among equals the smallest file."""
        rows = [row for row in self.bench if row.get(key) is not None]
        return min(rows, key=lambda row: (row[key], row.get("size_bytes") or 0.0), default=None)

    def make(self) -> str:
        """What to type for measured files: export a subnet that is there, or have some found."""
        if self.subnets:
            return f"todm export {shlex.quote(str(self.folder / 'subnets' / self.subnets[0]['subnet']))}"
        return f"todm search {shlex.quote(str(self.folder))}"

    def budget(self) -> str:
        """A budget that about half of the exported files meet."""
        sizes = sorted(row["size_bytes"] for row in self.bench if row.get("size_bytes")) or [1e6]
        return f"size<={math.ceil(sizes[len(sizes) // 2] / 1e4) / 100:g}MB"

    def label(self, key: str) -> str:
        """Words for a key, without its unit. Short names of an error are abbreviations."""
        base, _, part = key.partition(" (")
        words = _LABELS.get(base) or base.removesuffix("_bytes").removesuffix("_ms").replace("_", " ")
        if base == self.metric:
            words = self.run.get("metric_label", base.upper() if len(base) <= 4 else words)
        return f"{words} ({part}" if part else words

    def unit(self, key: str, largest: float) -> tuple[float, str]:
        """What the numbers of a key are divided by, and the unit they then have."""
        if key.endswith("_bytes") or key in ("params", "macs"):
            steps = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
            factor, prefix = next((step for step in steps if largest >= step[0]), steps[-1])
            return factor, prefix + ("B" if key.endswith("_bytes") else "")
        if key.partition(" (")[0] == self.metric:
            unit = self.run.get("metric_unit", "%")
            return 1.0, "points" if unit == "%" and key.endswith("(change)") else unit
        return 1.0, "ms" if key.endswith("_ms") else "%" if key == "mape" else ""

    def texts(self, key: str, values: Sequence[Any], digits: int = 2) -> tuple[str, list[str]]:
        """Unit and texts of a column: one unit and one number of decimals, so that the eye can compare."""
        numbers = [abs(value) for value in values if isinstance(value, float) and value]
        factor, unit = self.unit(key, max(numbers, default=1.0))
        smallest = min(numbers, default=1.0) / factor
        least = 2 if key.partition(" (")[0] == self.metric else 0
        form = f",.{max(least, digits - 1 - math.floor(math.log10(smallest)))}f"
        if unit in ("%", "points"):
            form = ".2f" if unit == "%" else "+.2f"
        elif factor == 1 and all(number.is_integer() for number in numbers):
            form = ",.0f"
        elif smallest < 1e-4:
            form = ".1e"
        shown = [f"{v / factor:{form}}" if isinstance(v, float) else str(v or "–") for v in values]
        return unit, ["0" if text == "0.0e+00" else text for text in shown]

    def show(self, key: str, value: Any) -> str:
        """One number with its unit, to three digits."""
        unit, texts = self.texts(key, [value], digits=3)
        return f"{texts[0]} {unit}".strip()

    def columns(self, rows: list[Row], keys: Iterable[str]) -> list[Row]:
        """The columns of a table that hold anything, with the largest value of every form."""
        columns = []
        for key in keys:
            values = [row.get(key) for row in rows]
            unit, texts = self.texts(key, values)
            numbers = [(row.get("form"), row[key]) for row in rows if isinstance(row.get(key), float)]
            worst = {form: max(value for other, value in numbers if other == form) for form, _ in numbers}
            if any(value not in (None, "") for value in values):
                head = {"key": key, "label": self.label(key), "unit": unit, "number": bool(worst)}
                columns.append(head | {"texts": texts, "values": values, "worst": worst})
        return columns

    def scatter(self, part: str, axes: Sequence[str], error: str) -> list[Row]:
        """A chart of the error against each axis the rows have; a line joins what nothing cheaper beats."""
        charts, rows = [], getattr(self, part)
        for row in rows:
            keys = [key for key in (error, *_TIP) if row.get(key) not in (None, "")]
            row["tip"] = [row["subnet"], row["family"], [(self.label(k), self.show(k, row[k])) for k in keys]]
        for key in axes:
            series: dict[str, Row] = {}
            for index, row in enumerate(rows):
                if (row.get(key) or 0.0) > 0 and row.get(error) is not None:
                    family = series.setdefault(row["family"], {"style": row["style"], "points": []})
                    family["points"].append((row[key], row[error], f"{part}/{index}", row["subnet"]))
            for name, family in series.items():
                family["line"] = unbeaten(p[:2] for p in family["points"]) if name != "candidate" else []
            if series:
                charts.append(self._chart(key, error, dict(sorted(series.items())), True, False))
        return charts

    def curves(self) -> list[Row]:
        """Loss, divergence and error on the dev set over the updates."""
        names = {"loss": "total", "loss_0": "largest", "loss_1": "smallest"}
        names |= {"loss_largest": "largest", "loss_smallest": "smallest"}
        error, colours = f"{self.metric} (dev)", {"largest": 0, "smallest": 1, "divergence": 2, "total": 4}
        lines: dict[str, dict[str, list[Point]]] = {"loss": {}, "divergence": {}, error: {}}
        for row in self.log:
            found = [("loss", name, row.get(key)) for key, name in names.items()]
            found += [(error, name, score.get(self.metric)) for name, score in row.get("dev", {}).items()]
            for key, name, value in [*found, ("divergence", "divergence", row.get("divergence"))]:
                if value is not None:
                    lines[key].setdefault(name, []).append((row["update"], value))
        charts = []
        for key, named in lines.items():
            series: dict[str, Row] = {}
            for name, line in named.items():
                series[name] = {"style": [colours.get(name, 3), 0], "points": [], "line": thin(line)}
            values = [value for one in series.values() for _, value in one["line"]]
            if values:
                charts.append(self._chart("update", key, series, False, 0 < 8 * min(values) < max(values)))
        return charts

    def _chart(self, x: str, y: str, series: dict[str, Row], log_x: bool, log_y: bool) -> Row:
        """What the template draws: series, and axes with their words, ticks and places."""
        chart: Row = {"series": series}
        for name, key, log in (("x", x, log_x), ("y", y, log_y)):
            points = [point for one in series.values() for point in one["points"] + one["line"]]
            line = axis([point[name == "y"] for point in points], log, down=name == "y")
            factor, unit = self.unit(key, line.ticks[-1])
            crowded = log and len(line.ticks) > (7 if name == "x" else 10)
            ticks = [(line.at(t), f"{t / factor:,.12g}", crowded and f"{t:e}"[0] != "1") for t in line.ticks]
            chart[name] = {"key": key, "label": self.label(key), "unit": unit, "ticks": ticks, "axis": line}
        return chart


@cache
def _template() -> Template:
    folder = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters["quote"] = lambda text: shlex.quote(str(text))
    return pages.get_template("report.html")
