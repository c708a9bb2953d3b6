"""Measuring the exported files on a device, in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from todm.errors import TodmError
from todm.export import runner
from todm.export.backend import Precision
from todm.export.bundle import Bundle
from todm.export.device import Device
from todm.files import atomic_write


def measure(
    bundle: Bundle,
    device: Device,
    runtime: str | None = None,
    precision: Precision | None = None,
    samples: Path | None = None,
) -> dict[str, Any]:
    """One row of bench.csv. Runtime and precision are the profile's unless given.

    Latencies are of a cycle: one main call with its share of calls of the other methods. `peak_rss_bytes` is
    that of the whole fresh process, `peak_memory_bytes` what of it came after importing the runtime. `rtf` is
    None where the program is not a stream. `samples` names a csv file for the time of every cycle.

    Raises:
        TodmError: the bundle lacks that runtime or precision, or the runner failed.
    """
    runtime, precision = runtime or device.runtime, precision or device.precision
    size = bundle.size_bytes(runtime, precision)
    # -P: beside runner.py lie modules named like the runtimes it imports.
    command = [sys.executable, "-P", runner.__file__, str(bundle.folder), "--runtime", runtime]
    command += ["--precision", precision, "--threads", str(device.threads), "--cycles", str(device.cycles)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(device.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise TodmError(f"benchmark of {bundle.folder} with {runtime} {precision} on {device.name} failed: {reason}")
    result = json.loads(done.stdout.splitlines()[-1])
    cycles = result["cycles_ms"]
    if samples:
        atomic_write(samples, "\n".join(["cycle_ms", *(f"{cycle:.6f}" for cycle in cycles)]) + "\n")
    p50, p90, p99 = (round(float(value), 6) for value in np.percentile(cycles, (50, 90, 99)))
    seconds = bundle.manifest["program"]["seconds"]
    return {
        "runtime": runtime,
        "precision": precision,
        "size_bytes": size,
        "params": bundle.manifest["params"],
        "macs": bundle.manifest["macs"],
        "latency_p50_ms": p50,
        "latency_p90_ms": p90,
        "latency_p99_ms": p99,
        "rtf": round(float(np.mean(cycles)) / 1000.0 / seconds, 6) if seconds else None,
        "load_ms": round(result["load_ms"], 3),
        "peak_rss_bytes": result["peak_rss_bytes"],
        "peak_memory_bytes": result["peak_rss_bytes"] - result["rss_before_bytes"],
        "threads": device.threads,
        "cpu": result["cpu"],
        "governor": result["governor"],
        "device": device.name,
        "versions": ", ".join(f"{name} {number}" for name, number in result["versions"].items()),
    }
