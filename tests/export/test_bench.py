"""The runner counts what it says it counts, in a process of its own, and says why it failed."""

import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.streaming import in_turns
from todm.errors import TodmError
from todm.export import Bundle, Device, find_device, measure, runner

QUICK = Device(name="quick", cycles=20)


@pytest.mark.parametrize("runtime", ["onnx", "executorch"])
def test_a_row_is_complete_and_sane(pristine: Bundle, tmp_path: Path, runtime: str) -> None:
    row = measure(pristine, QUICK, runtime, "int8", tmp_path / "samples.csv", paced=5, soak=100)
    lines = (tmp_path / "samples.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["pace", *["full"] * 20, *["live"] * 5]
    samples = np.array([float(line.split(",")[1]) for line in lines[1:21]])
    assert 0 < row["latency_p50_ms"] <= row["latency_p90_ms"] <= row["latency_p99_ms"] < 100
    assert row["latency_p50_ms"] == pytest.approx(np.median(samples), abs=1e-5)
    assert row["rtf"] == pytest.approx(samples.mean() / 1000 / 0.08, abs=1e-5)
    assert 0 < row["load_ms"] < 10_000
    assert 0 < row["peak_memory_bytes"] < row["peak_rss_bytes"] < 2e9
    assert row["size_bytes"] == pristine.size_bytes(runtime, "int8")
    assert (row["params"], row["macs"], row["threads"], row["device"]) == (40_000, 100_000, 1, "quick")
    assert runtime.replace("onnx", "onnxruntime") in row["versions"]
    assert row["cpu"] and row["machine"]
    assert (row["paced_chunks"], row["soak_cycles"]) == (5, 100)
    assert row["deadline_misses"] == sum(float(line.split(",")[1]) > 80 for line in lines[21:])
    assert abs(row["memory_growth_bytes"]) < 50e6
    assert row["binary_bytes"] > 1e6
    assert 80 < row["first_token_ms"] < 12 * 80 + 1000
    assert row["matrix_accelerated"] == 1 and 0.5 < row["time_accelerated"] <= 1
    json.dumps(row, allow_nan=False)


def test_two_runtimes_take_turns(pristine: Bundle) -> None:
    """As many chunks of each, warm-up not among them."""
    times = in_turns(pristine, "int8", cycles=7)
    assert {runtime: len(each) for runtime, each in times.items()} == {"onnx": 7, "executorch": 7}
    assert all((each > 0).all() for each in times.values())


def test_the_peak_is_this_process_own(pristine: Bundle) -> None:
    """A child's `ru_maxrss` starts at its parent's: 400 MB held here must not show there."""
    ballast = np.ones(50_000_000)
    assert measure(pristine, QUICK)["peak_rss_bytes"] < ballast.nbytes


def test_the_runner_needs_no_todm(pristine: Bundle, tmp_path: Path) -> None:
    """As on a device: the one file and the bundle, with every import of todm failing."""
    (tmp_path / "runner.py").write_bytes(Path(runner.__file__).read_bytes())
    (tmp_path / "todm.py").write_text("raise ImportError('todm is not here')")
    command = [sys.executable, "runner.py", str(pristine.folder), "--runtime", "onnx", "--cycles", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ)
    assert len(json.loads(done.stdout)["cycles_ms"]) == 3


def test_a_cycle_carries_states_and_makes_the_share_of_other_calls(pristine: Bundle) -> None:
    counts = {"encode_chunk": 0, "predict": 0, "join": 0}

    def encode_chunk(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        assert all((state == counts["encode_chunk"]).all() for state in inputs[1:])
        counts["encode_chunk"] += 1
        return inputs[0], inputs[1] + 1, inputs[2] + 1

    def other(name: str) -> None:
        counts[name] += 1

    methods = {
        "encode_chunk": encode_chunk,
        "predict": lambda *_: other("predict"),
        "join": lambda *_: other("join"),
    }
    times = runner.run(methods, pristine.manifest["program"], 40)
    cycles = 40 + runner.WARM_UP
    assert len(times) == 40
    assert counts == {"encode_chunk": cycles, "predict": 1.5 * cycles, "join": 4 * cycles}


def test_a_runner_that_fails_says_why(pristine: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "__file__", "/nonexistent/runner.py")
    with pytest.raises(TodmError, match=r"onnx float on quick failed: .*No such file"):
        measure(pristine, QUICK)


def test_the_shipped_profile() -> None:
    assert find_device("local") == Device(name="local", cycles=200)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nthread: 2\n", "thread: Unexpected keyword argument"),
        ("name: x\nthreads: 0\n", "threads: Input should be greater than or equal to 1"),
        ("name: [\n", "not valid YAML"),
        ("", "dictionary"),
    ],
)
def test_a_wrong_profile_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(TodmError, match=message) as error:
        find_device(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(error.value)


def test_unknown_device_lists_the_known() -> None:
    with pytest.raises(TodmError, match=r"unknown device 'pi9'; known: browser, local, or a .yaml file"):
        find_device("pi9")


def test_a_chunk_is_missed_where_it_is_not_done_before_the_next_is_complete() -> None:
    """Every second cycle takes 1.5 chunks; the one after it starts late by half a chunk, and still is in time."""
    program = {"seconds": 0.06, "methods": [{"name": "encode", "inputs": [], "outputs": [], "states": {}}]}
    calls = 0

    def encode() -> tuple[np.ndarray, ...]:
        nonlocal calls
        calls += 1
        time.sleep(0.09 if calls % 2 == 0 else 0.0)
        return ()

    times = runner.run_paced({"encode": encode}, program, 6)
    assert [ms > 60 for ms in times] == [True, False] * 3
    assert all(90 <= ms < 120 for ms in times[::2])
    assert all(30 <= ms < 60 for ms in times[1::2])
    assert calls == 7


def test_memory_that_grows_is_seen() -> None:
    kept: list[mmap.mmap] = []

    def encode() -> tuple[()]:
        kept.append(mmap.mmap(-1, 100_000))  # fresh pages: the heap may hold free ones from tests before
        kept[-1].write(bytes([1]) * 100_000)
        return ()

    program = {"methods": [{"name": "encode", "inputs": [], "outputs": [], "states": {}}]}
    growth = runner.soak({"encode": encode}, program, 300)
    assert 25e6 < growth < 40e6
    assert runner.soak({"encode": lambda: ()}, program, 300) < 1e6
