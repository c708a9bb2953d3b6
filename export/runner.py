"""The benchmark that goes to a device: one file that needs Python, NumPy and the runtime, and prints one JSON object.

    python runner.py BUNDLE --runtime onnx --precision float --threads 1 --cycles 200

A cycle is one call of the main method with its states carried, and of each other method as many calls as ordinary use
makes. Warm-up cycles are run and not counted. Import it elsewhere for the two loaders.
"""

import argparse
import json
import platform
import sys
import time
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 20


def load_onnx(folder: Path, precision: str, threads: int) -> tuple[dict, list[str]]:
    """Methods by name from a folder of ONNX files, and the packages whose versions matter."""
    import onnxruntime

    def bind(path: Path) -> tuple[str, Any]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]

        def call(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            return tuple(session.run(None, dict(zip(names, inputs))))  # noqa: B905 (devices with Python 3.9)

        return session.get_modelmeta().custom_metadata_map["todm_method"], call

    paths = []
    for path in sorted(Path(folder).glob("*.onnx")):
        int8 = path.with_suffix(".int8.onnx")
        if not path.name.endswith(".int8.onnx"):
            paths.append(int8 if precision == "int8" and int8.exists() else path)
    return dict(bind(path) for path in paths), ["onnxruntime"]


def load_executorch(folder: Path, precision: str, threads: int) -> tuple[dict, list[str]]:
    """Methods by name from a folder with a .pte file. The number of threads holds for the whole process."""
    import executorch.extension.pybindings.portable_lib as library
    import torch
    from executorch.runtime import Runtime

    if library._threadpool_get_thread_count() != threads:
        library._unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(str(Path(folder) / ("model.int8.pte" if precision == "int8" else "model.pte")))

    def bind(name: str) -> Any:
        program.load_method(name)

        # Asks the program for the (loaded) method each time: one that outlives its program crashes the process.
        def call(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            tensors = [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs]
            return tuple(output.numpy() for output in program.load_method(name).execute(tensors))

        return call

    return {name: bind(name) for name in program.method_names}, ["executorch", "torch"]


def load_other(folder: Path, precision: str, threads: int, runtime: str) -> tuple[dict, list[str]]:
    """Methods of a runtime that another package adds to todm, where both are installed."""
    from todm.export.backend import find

    backend: Any = find(runtime)
    return dict(backend.load(folder, precision, threads)), list(backend.versions())


RUNTIMES = {"onnx": ("onnxruntime", load_onnx), "executorch": ("executorch.runtime", load_executorch)}


def run(methods: dict, program: dict, cycles: int) -> list[float]:
    """Milliseconds of each cycle, on normal noise for signals and zeros for symbols."""
    random = np.random.default_rng(0)

    def example(spec: dict) -> np.ndarray:
        shape, dtype = spec["shape"], np.dtype(spec["dtype"])
        return (random.standard_normal(shape) if dtype.kind == "f" else np.zeros(shape)).astype(dtype)

    main, *others = program["methods"]
    names = [spec["name"] for spec in main["inputs"]]
    inputs = [np.zeros_like(example(spec)) if spec["name"] in main["states"].values() else example(spec)
              for spec in main["inputs"]]  # fmt: skip
    feeds = [(main["outputs"].index(out), names.index(into)) for out, into in main["states"].items()]
    rest = [(methods[other["name"]], [example(spec) for spec in other["inputs"]], other["calls"]) for other in others]
    due = [0.0] * len(rest)
    times = []
    for _ in range(WARM_UP + cycles):
        begin = time.perf_counter()
        outputs = methods[main["name"]](*inputs)
        for out, into in feeds:
            inputs[into] = outputs[out]
        for index, (call, values, calls) in enumerate(rest):
            due[index] += calls
            while due[index] >= 1.0:
                call(*values)
                due[index] -= 1.0
        times.append((time.perf_counter() - begin) * 1000.0)
    return times[WARM_UP:]


def memory() -> tuple[int, int]:
    """Resident bytes of this process: now, and at the highest so far."""
    try:
        # Not getrusage: its peak is inherited from the process that started this one.
        with open("/proc/self/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        return tuple(int(fields[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return peak, peak


def processor() -> str:
    """Name of the CPU, as far as the system tells."""
    for path, key in (("/proc/cpuinfo", "model name"), ("/proc/device-tree/model", "")):
        try:
            text = Path(path).read_text(errors="replace").strip("\0\n")
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith(key):
                return line.split(":", 1)[-1].strip()
    return platform.processor() or platform.machine()


def governor() -> str:
    """Frequency governor of the first CPU, or `unknown` (virtual machines do not show it)."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return "unknown"


def main(arguments: "list[str] | None" = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--precision", default="float", choices=("float", "int8"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cycles", type=int, default=200)
    args = parser.parse_args(arguments)
    manifest = json.loads((args.bundle / "bundle.json").read_text())
    folder = args.bundle / manifest["runtimes"][args.runtime]["folder"]
    package, load = RUNTIMES.get(args.runtime, ("todm.export.backend", partial(load_other, runtime=args.runtime)))
    # Before the clock starts: load time is the model's, not the package's.
    import_module(package)
    before, _ = memory()
    begin = time.perf_counter()
    methods, packages = load(folder, args.precision, args.threads)
    load_ms = (time.perf_counter() - begin) * 1000.0
    cycles_ms = run(methods, manifest["program"], args.cycles)
    result = {
        "runtime": args.runtime,
        "precision": args.precision,
        "threads": args.threads,
        "load_ms": load_ms,
        "cycles_ms": cycles_ms,
        "rss_before_bytes": before,
        "peak_rss_bytes": memory()[1],
        "cpu": processor(),
        "governor": governor(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ["numpy", *packages]}},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
