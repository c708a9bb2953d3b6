"""Run every case of every module in turn, each in a fresh process on one thread; the first of a group is its baseline.

python -m bench.run                 all, into bench/results.csv
python -m bench.run optimizer       those of one module, printed only
"""

import csv
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MODULES = ("loss", "optimizer", "scale")
"""A module has CASES, {group: {case: function without arguments -> {column: number}}}, and BARS, {case: (most time,
most memory)} relative to the baseline, None where there is no bar."""
ROUNDS = 3
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
RESULTS = Path(__file__).with_name("results.csv")
COLUMNS = (
    "module", "group", "case", "seconds", "cpu_seconds", "peak_mb", "difference", "waiting",
    "time_ratio", "time_bar", "memory_ratio", "memory_bar",
)  # fmt: skip


def main(arguments: list[str]) -> None:
    """With `--case MODULE GROUP CASE` measure one here and print it; else start them all."""
    if arguments[:1] == ["--case"]:
        module, group, case = arguments[1:]
        os.environ.update(ONE_THREAD)  # before anything imports torch
        print(json.dumps(importlib.import_module(f"bench.{module}").CASES[group][case]()))
        return
    rows = [row for module in arguments or MODULES for row in rows_of(module)]
    print_table(rows)
    if not arguments:
        write_results(rows)
        print(f"\n{RESULTS}")


def rows_of(module: str) -> list[dict[str, object]]:
    """The results of a module: medians over rounds in which the cases of a group take turns."""
    home = importlib.import_module(f"bench.{module}")
    rows = []
    for group, cases in home.CASES.items():
        rounds = [{case: measure(module, group, case) for case in cases} for _ in range(ROUNDS)]
        baseline = next(iter(cases))
        for case in cases:
            numbers = {key: statistics.median(r[case][key] for r in rounds) for key in rounds[0][case]}
            row: dict[str, object] = {"module": module, "group": group, "case": case, **numbers}
            if case in home.BARS and baseline not in home.BARS:
                # Of rounds, not of medians: what else the machine did then slowed both.
                for ratio, key in (("time_ratio", getattr(home, "CLOCK", "cpu_seconds")), ("memory_ratio", "peak_mb")):
                    row[ratio] = statistics.median(r[case][key] / max(r[baseline][key], 1e-9) for r in rounds)
                row["time_bar"], row["memory_bar"] = home.BARS[case]
            rows.append(row)
    return rows


def measure(module: str, group: str, case: str) -> dict[str, float]:
    """One case in a process of its own."""
    print(f"{module}: {group}, {case}", file=sys.stderr)
    command = [sys.executable, "-m", "bench.run", "--case", module, group, case]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_table(rows: list[dict[str, object]]) -> None:
    """What was measured, with its bars."""
    print(f"{'':38}{'ms':>10}{'CPU ms':>10}{'peak MB':>10}{'error':>10}{'waiting':>10}{'time':>14}{'memory':>14}")
    for row in rows:
        line = f"{row['group']}, {row['case']}".ljust(38)
        line += "".join(f"{1000 * float(row[key]):10.2f}" for key in ("seconds", "cpu_seconds"))  # type: ignore[arg-type]
        line += f"{row['peak_mb']:10.1f}" + (f"{row['difference']:10.1e}" if "difference" in row else " " * 10)
        line += f"{row['waiting']:10.1%}" if "waiting" in row else " " * 10
        for key in ("time", "memory"):
            ratio, bar = row.get(f"{key}_ratio"), row.get(f"{key}_bar")
            line += (f"{ratio:.2f} (<={bar})" if bar else "").rjust(14)
        print(line)


def write_results(rows: list[dict[str, object]]) -> None:
    """The CSV, every row with the machine and the versions."""
    where = {"date": date.today().isoformat(), "cpu": cpu_model(), "threads": 1, "python": platform.python_version()}
    for package in ("torch", "torchaudio"):
        try:
            where[package] = version(package)
        except PackageNotFoundError:
            where[package] = "not installed"
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *where])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} | where)


def cpu_model() -> str:
    """As Linux names it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


if __name__ == "__main__":
    main(sys.argv[1:])
