"""One case measured in its own process: seconds, CPU seconds and what it adds to the peak of memory."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path


def measured(work: Callable[[], object], repeats: int) -> dict[str, float]:
    """Run `work` once for the memory, then `repeats` times for the time.

    Returns:
        seconds: median; cpu_seconds: least of this process's, which neighbours on the machine disturb less;
        peak_mb: how far the first run rises above the resident memory before it (Linux only).
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from here
    before = _status("VmRSS")
    work()
    peak = _status("VmHWM") - before
    seconds, cpu = [], []
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    return {"seconds": statistics.median(seconds), "cpu_seconds": min(cpu), "peak_mb": peak / 1024}


def _status(key: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
