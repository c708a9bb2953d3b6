"""Measuring the exported files on a device, in a process of their own."""

from pathlib import Path
from typing import Any

import numpy as np

from todm.export import delegation
from todm.export.backend import Precision
from todm.export.browser import run_in_browser
from todm.export.bundle import Bundle
from todm.export.device import Device, find_device
from todm.export.reach import run_there
from todm.files import atomic_write
from todm.rows import put_rows

BENCH_KEYS = ("subnet", "device", "runtime", "precision")
"""What a row of bench.csv is the only one of."""


def measure(
    bundle: Bundle,
    device: Device,
    runtime: str | None = None,
    precision: Precision | None = None,
    samples: Path | None = None,
    paced: int = 0,
    soak: int = 0,
) -> dict[str, Any]:
    """One row of bench.csv. Runtime and precision are the profile's unless given; what was not measured is None.

    Latencies are of a cycle: one main call with its share of calls of the other methods. `peak_rss_bytes` is
    that of the whole fresh process, `peak_memory_bytes` what of it came after importing the runtime. `rtf` is
    None where the program is not a stream. `deadline_misses` counts the paced chunks that were not done before the
    next was complete.

    Args:
        samples: CSV file for the time of every cycle, `pace,ms`.
        paced: Chunks to measure at the pace of a live signal.
        soak: Cycles over which the growth of memory is watched.

    Raises:
        TodmError: the bundle lacks that runtime or precision, the device cannot be reached, or the runner failed.
    """
    runtime, precision = runtime or device.runtime, precision or device.precision
    size = bundle.size_bytes(runtime, precision)
    if runtime == "web" and device.reach != "browser":  # whatever else is measured: pages run in browsers
        device = find_device("browser")
    if device.reach == "browser":
        result = run_in_browser(bundle, device, runtime, precision, paced, soak)
    else:
        options = ["--cycles", device.cycles, "--paced", paced, "--soak", soak]
        result = run_there(bundle, device, runtime, precision, list(map(str, options)))
    cycles, live = result["cycles_ms"], result["paced_ms"]
    if samples:
        rows = [f"{pace},{ms:.6f}" for pace, times in (("full", cycles), ("live", live)) for ms in times]
        atomic_write(samples, "\n".join(["pace,ms", *rows]) + "\n")
    seconds = bundle.manifest["program"]["seconds"]
    operators = [operator | {"file": ""} for operator in result["operators"]]  # of all files together
    traced = delegation.summarise(operators)[0] if operators else {}
    row: dict[str, Any] = {
        "runtime": runtime,
        "precision": precision,
        "size_bytes": size,
        "params": bundle.manifest["params"],
        "macs": bundle.manifest["macs"],
        **_percentiles("latency", cycles),
        "rtf": round(float(np.mean(cycles)) / 1000.0 / seconds, 6) if seconds else None,
        "load_ms": round(result["load_ms"], 3),
        "peak_rss_bytes": result["peak_rss_bytes"],
        "peak_memory_bytes": result["peak_rss_bytes"] - result["rss_before_bytes"],
        "first_token_ms": result.get("first_token_ms"),
        "threads": device.threads,
        "cpu": result["cpu"],
        "machine": result["machine"],
        "governor": result["governor"],
        "temperature_c": result["temperature_c"],
        "binary_bytes": result["binary_bytes"],
        **{key: traced.get(key) for key in ("nodes_accelerated", "time_accelerated", "matrix_accelerated")},
        "device": device.name,
        "versions": ", ".join(f"{name} {number}" for name, number in result["versions"].items()),
    }
    if live:
        misses = sum(ms > 1000.0 * seconds for ms in live)
        row |= {"paced_chunks": len(live), "deadline_misses": misses, **_percentiles("paced", live)}
    if soak:
        row |= {"soak_cycles": soak, "memory_growth_bytes": result["growth_bytes"]}
    return row


def _percentiles(name: str, times: list[float]) -> dict[str, float]:
    values = np.percentile(times, (50, 90, 99))
    return {f"{name}_{p}_ms": round(float(value), 6) for p, value in zip(("p50", "p90", "p99"), values, strict=True)}


def keep(bundle: Bundle, row: dict[str, Any]) -> None:
    """Record a measurement in its bundle, and in bench.csv where the bundle belongs to a subnet of a run."""
    bundle.record(measurements=[row])
    subnet = bundle.folder.resolve().parent
    run = subnet.parent.parent
    if subnet.parent.name == "subnets" and (run / "recipe.yaml").is_file():
        metric = next(iter(bundle.manifest["metrics"]))
        scores = {each["form"]: each.get(metric) for each in bundle.manifest["parity"]}
        score = scores.get(f"{row['runtime']} {row['precision']}")
        put_rows(run / "bench.csv", [{"subnet": subnet.name, **row, metric: score}], BENCH_KEYS)
