"""The benchmark that goes to a device: one file that needs Python, NumPy and the runtime, and prints JSON.

    python runner.py BUNDLE --runtime onnx --precision float --threads 1 --cycles 200

A cycle is one call of the main method with its states carried, and of each other method as many calls as
ordinary use makes. Warm-up cycles are run and not counted. The two loaders serve todm itself as well.
"""

import argparse
import json
import platform
import re
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 20


def load_onnx(folder: Path, precision: str, threads: int) -> dict[str, Any]:
    """Methods by name from a folder of ONNX files; int8 files where asked for and present."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL

    def bind(path: Path) -> tuple[str, Any]:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]

        def call(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            return tuple(session.run(None, dict(zip(names, inputs, strict=True))))

        return session.get_modelmeta().custom_metadata_map["todm_method"], call

    methods = {}
    for path in sorted(folder.glob("*.onnx")):
        int8 = path.with_suffix(".int8.onnx")
        if not path.name.endswith(".int8.onnx"):
            name, methods[name] = bind(int8 if precision == "int8" and int8.exists() else path)
    return methods


def load_executorch(folder: Path, precision: str, threads: int) -> dict[str, Any]:
    """Methods by name from a folder with a .pte file. The number of threads holds for the whole process."""
    import executorch.extension.pybindings.portable_lib as library
    import torch
    from executorch.runtime import Runtime

    if library._threadpool_get_thread_count() != threads:
        library._unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(folder / ("model.int8.pte" if precision == "int8" else "model.pte"))

    def bind(name: str) -> Any:
        program.load_method(name)

        # Asks the program for its method each time: one that outlives its program crashes the process.
        def call(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            tensors = [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs]
            return tuple(output.numpy() for output in program.load_method(name).execute(tensors))

        return call

    return {name: bind(name) for name in program.method_names}


RUNTIMES: dict[str, tuple[Any, list[str]]] = {
    "onnx": (load_onnx, ["onnxruntime"]),
    "executorch": (load_executorch, ["executorch.runtime", "torch"]),
}
"""Loader, and the modules it imports."""


def run(methods: dict[str, Any], program: dict[str, Any], cycles: int) -> list[float]:
    """Milliseconds of each cycle, on normal noise for signals and zeros for states and symbols."""
    random = np.random.default_rng(0)

    def examples(method: dict[str, Any]) -> list[np.ndarray]:
        values = []
        for spec in method["inputs"]:
            noise = spec["dtype"].startswith("float") and spec["name"] not in method["states"].values()
            value = random.standard_normal(spec["shape"]) if noise else np.zeros(spec["shape"])
            values.append(value.astype(spec["dtype"]))
        return values

    main, *others = program["methods"]
    names = [spec["name"] for spec in main["inputs"]]
    feeds = [(main["outputs"].index(out), names.index(into)) for out, into in main["states"].items()]
    inputs = examples(main)
    rest = [(methods[other["name"]], examples(other), other["calls"]) for other in others]
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


def read(path: str) -> str:
    """What a system file says, nothing where there is none."""
    try:
        return Path(path).read_text(errors="replace").strip("\0\n")
    except OSError:
        return ""


def memory(field: str) -> int:
    """Resident bytes of this process: `VmRSS` now, `VmHWM` at the highest so far."""
    found = re.search(rf"^{field}:\s*(\d+) kB", read("/proc/self/status"), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    # Only where there is no /proc: this peak is inherited from the process that started this one.
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def processor() -> str:
    """Name of the CPU or of the board, as far as the system tells."""
    found = re.search(r"^model name\s*: (.*)$", read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else read("/proc/device-tree/model") or platform.machine()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--precision", default="float", choices=("float", "int8"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cycles", type=int, default=200)
    args = parser.parse_args()
    manifest = json.loads((args.bundle / "bundle.json").read_text())
    if args.runtime in RUNTIMES:
        load, modules = RUNTIMES[args.runtime]
    else:  # A runtime that another package adds to todm, where both are installed.
        from todm.export.backend import find_backend

        backend = find_backend(args.runtime)
        load, modules = backend.load, list(backend.versions())
    for module in modules:  # Before the clock starts: load time is the model's, not the package's.
        import_module(module)
    before, begin = memory("VmRSS"), time.perf_counter()
    methods = load(args.bundle / manifest["runtimes"][args.runtime]["folder"], args.precision, args.threads)
    load_ms = (time.perf_counter() - begin) * 1000.0
    cycles_ms = run(methods, manifest["program"], args.cycles)
    versions = {name: version(name) for name in ("numpy", *(name.partition(".")[0] for name in modules))}
    result = {
        "load_ms": load_ms,
        "cycles_ms": cycles_ms,
        "rss_before_bytes": before,
        "peak_rss_bytes": memory("VmHWM"),
        "cpu": processor(),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "versions": {"python": platform.python_version(), **versions},
    }
    print(json.dumps({**vars(args), "bundle": str(args.bundle), **result}))


if __name__ == "__main__":
    main()
