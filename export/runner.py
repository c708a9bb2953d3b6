"""The benchmark that goes to a device: one file that needs Python, NumPy and the runtime, and prints JSON.

    python runner.py BUNDLE --runtime onnx --precision float --threads 1 --cycles 200 --paced 50 --soak 10000

A cycle is one call of the main method with its states carried, and of each other method as many calls as ordinary use
makes: `--cycles` back to back, `--paced` at the pace of a live signal, `--soak` watching the memory. Warm-up is not
counted. The loaders and tracers serve todm itself as well.
"""

import argparse
import json
import platform
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

WARM_UP = 20
TRACED = 10
"""Calls of each method under the profiler."""
PROOF = "proof.npz"
"""Real calls that a bundle carries, with what PyTorch answered."""


PROVIDER = "CPUExecutionProvider"


def _operator(file: str, method: str, op: str, where: str, fast: str, ms: float) -> dict[str, Any]:
    return {"file": file, "method": method, "op": op, "where": where, "fast": where == fast, "ms": ms}


# -- ONNX Runtime -----------------------------------------------------------------------------------------------


def _sessions(folder: Path, precision: str, threads: int, profile: str = "") -> Iterator[tuple[str, str, Any]]:
    """Name of the method, name of the file and session; int8 or int4 files where asked for and present."""
    import onnxruntime

    for stem in sorted({re.sub(r"(\.int[48])?\.onnx$", "", path.name) for path in folder.glob("*.onnx")}):
        narrow = folder / f"{stem}.{precision}.onnx"
        path = narrow if narrow.exists() else folder / f"{stem}.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, f"{profile}/{path.stem}"
        session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
        yield session.get_modelmeta().custom_metadata_map["todm_method"], path.name, session


def load_onnx(folder: Path, precision: str, threads: int, wanted: Sequence[str] | None = None) -> dict[str, Any]:
    """Methods by name from a folder of ONNX files."""

    def bind(session: Any) -> Any:
        names = [value.name for value in session.get_inputs()]

        def call(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            return tuple(session.run(None, dict(zip(names, inputs, strict=True))))

        return call

    found = {method: bind(session) for method, _, session in _sessions(folder, precision, threads)}
    return {name: found[name] for name in wanted or found}


def trace_onnx(folder: Path, precision: str, threads: int, program: dict[str, Any]) -> list[dict[str, Any]]:
    """Nodes of the optimised graphs, from ONNX Runtime's profiler; `where` is the execution provider."""
    operators = []
    inputs = {method["name"]: examples(method) for method in program["methods"]}
    with tempfile.TemporaryDirectory() as scratch:
        for method, file, session in _sessions(folder, precision, threads, scratch):
            feeds = dict(zip((value.name for value in session.get_inputs()), inputs[method], strict=True))
            for _ in range(TRACED):
                session.run(None, feeds)
            nodes: dict[str, list[dict[str, Any]]] = {}
            for event in json.loads(Path(session.end_profiling()).read_text()):
                if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                    nodes.setdefault(event["name"], []).append(event)
            for events in nodes.values():
                what = events[0]["args"]
                took = median(event["dur"] for event in events) / 1000.0
                operators.append(_operator(file, method, what["op_name"], what["provider"], PROVIDER, took))
    return operators


# -- ExecuTorch -------------------------------------------------------------------------------------------------


def _pte(folder: Path, precision: str, threads: int) -> Path:
    """The file, once the threads of the process are set."""
    import executorch.extension.pybindings.portable_lib as library

    if library._threadpool_get_thread_count() != threads:
        library._unsafe_reset_threadpool(threads)
    return folder / ("model.int8.pte" if precision == "int8" else "model.pte")


def load_executorch(folder: Path, precision: str, threads: int, wanted: Sequence[str] | None = None) -> dict[str, Any]:
    """Methods by name from a folder with a .pte file. The number of threads holds for the whole process."""
    import torch
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(_pte(folder, precision, threads))

    def bind(name: str) -> Any:
        program.load_method(name)

        # Asks the program for its method each time: one that outlives its program crashes the process.
        def call(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            tensors = [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs]
            return tuple(output.numpy() for output in program.load_method(name).execute(tensors))

        return call

    return {name: bind(name) for name in wanted or program.method_names}


def trace_executorch(folder: Path, precision: str, threads: int, program: dict[str, Any]) -> list[dict[str, Any]]:
    """Operators in and outside XNNPACK, from the runtime's event tracer (ETDump).

    XNNPACK counts microseconds, so the finer time of a delegate call is shared out among its operators by their counts.
    """
    import torch
    from executorch.extension.pybindings.portable_lib import _load_for_executorch

    path, operators = _pte(folder, precision, threads), []
    for method in program["methods"]:
        name, inputs = method["name"], tuple(map(torch.from_numpy, examples(method)))
        module = _load_for_executorch(str(path), enable_etdump=True)
        for _ in range(TRACED):
            module.run_method(name, inputs)
        with tempfile.TemporaryDirectory() as scratch:
            module.write_etdump_result_to_file(f"{scratch}/etdump", f"{scratch}/debug")
            runs = list(filter(None, map(_kernels, _etdump(Path(scratch, "etdump").read_bytes()))))
        for same in zip(*runs, strict=True):
            took = median(ms for _, _, ms in same)
            operators.append(_operator(path.name, name, same[0][0], same[0][1], "XNNPACK", took))
    return operators


def _etdump(data: bytes) -> list[list[tuple[str, str, float]]]:
    """(name, delegate's name of the operator or nothing, ms) of every event of every run in an ETDump.

    Slots of the tables are those of executorch/devtools/etdump/etdump_schema_flatcc.fbs.
    """
    from flatbuffers.number_types import Uint64Flags
    from flatbuffers.table import Table

    def children(table: Any, slot: int) -> list[Any]:
        field = table.Offset(4 + 2 * slot)
        start = table.Vector(field) if field else 0
        return [
            Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(table.VectorLen(field) if field else 0)
        ]

    def value(table: Any, slot: int) -> Any:
        field = table.Offset(4 + 2 * slot)
        if slot in (0, 4):
            return table.String(field + table.Pos).decode() if field else ""
        return table.Get(Uint64Flags, field + table.Pos) if field else 0

    buffer = bytearray(data)
    root, runs = Table(buffer, 4 + int.from_bytes(data[4:8], "little")), []  # after the size
    for run in children(root, 1):
        events = []
        for event in children(run, 3):
            if field := event.Offset(4):
                timed = Table(buffer, event.Indirect(field + event.Pos))
                events.append((value(timed, 0), value(timed, 4), (value(timed, 7) - value(timed, 6)) / 1e6))
        runs.append(events)
    return runs


def _kernels(events: list[tuple[str, str, float]]) -> list[tuple[str, str, float]]:
    """(operator, where, ms) of one run: a delegate's operators come before the call that held them."""
    found: list[tuple[str, str, float]] = []
    inside: list[tuple[str, float]] = []
    native = ""
    for name, delegated, ms in events:
        if delegated:
            inside.append((re.sub(r" #\d+$", "", delegated), ms))
        elif name == "DELEGATE_CALL":
            counted = sum(part for _, part in inside)
            shares = [part / counted if counted else 1 / len(inside) for _, part in inside]
            found += [(op, "XNNPACK", ms * share) for (op, _), share in zip(inside, shares, strict=True)]
            inside = []
        elif name.startswith("native_call_"):
            native = name.removeprefix("native_call_")
        elif name == "OPERATOR_CALL":
            found.append((native or name, "portable", ms))
    return found


RUNTIMES: dict[str, tuple[list[str], Any, Any]] = {
    "onnx": (["onnxruntime"], load_onnx, trace_onnx),
    "executorch": (["executorch.runtime", "torch"], load_executorch, trace_executorch),
}
"""The modules each imports, and two functions of folder, precision and threads: one gives its methods by name as
functions of NumPy arrays, the other, given the program's signature too, every operator that ran."""


def added(name: str) -> tuple[list[str], Any, Any]:
    """A runtime that another package adds to todm, where both are installed."""
    from todm.export.backend import find_backend

    backend: Any = find_backend(name)
    return list(backend.versions()), backend.load, backend.trace


# -- the work ---------------------------------------------------------------------------------------------------


def way(program: dict[str, Any], variant: str | None = None) -> dict[str, Any]:
    """A program's signature reduced to one way of using it, by default its first, named in `variant`."""
    variant = next(iter(program["variants"])) if variant is None else variant
    by_name = {method["name"]: method for method in program["methods"]}
    return {**program, "variant": variant, "methods": [by_name[name] for name in program["variants"][variant]]}


def examples(method: dict[str, Any]) -> list[np.ndarray]:
    """Normal noise for signals, zeros for states and symbols."""
    random, values = np.random.default_rng(0), []
    for spec in method["inputs"]:
        noise = spec["dtype"].startswith("float") and spec["name"] not in method["states"].values()
        values.append((random.standard_normal if noise else np.zeros)(spec["shape"]).astype(spec["dtype"]))
    return values


class Cycle:
    """Called, it runs one cycle of a program."""

    def __init__(self, methods: dict[str, Any], program: dict[str, Any]) -> None:
        main, *others = program["methods"]
        names = [spec["name"] for spec in main["inputs"]]
        self._main, self._inputs = methods[main["name"]], examples(main)
        self._feeds = [(main["outputs"].index(out), names.index(into)) for out, into in main["states"].items()]
        self._others = [(methods[other["name"]], examples(other), other["calls"]) for other in others]
        self._due = [0.0] * len(others)

    def __call__(self) -> None:
        outputs = self._main(*self._inputs)
        for out, into in self._feeds:
            self._inputs[into] = outputs[out]
        for index, (call, values, calls) in enumerate(self._others):
            self._due[index] += calls
            while self._due[index] >= 1.0:
                call(*values)
                self._due[index] -= 1.0


def run(methods: dict[str, Any], program: dict[str, Any], cycles: int) -> list[float]:
    """Milliseconds of each cycle, one right after the other."""
    cycle, times = Cycle(methods, program), []
    for _ in range(WARM_UP + cycles):
        begin = time.perf_counter()
        cycle()
        times.append((time.perf_counter() - begin) * 1000.0)
    return times[WARM_UP:]


def run_paced(methods: dict[str, Any], program: dict[str, Any], cycles: int) -> list[float]:
    """Milliseconds from the moment each chunk of a live signal is complete to the end of its cycle.

    Between chunks the process sleeps, as a recogniser does: caches cool down and clocks slow down. A chunk that takes
    longer than its own length is missed; the next one then starts late, and counts from its own moment.
    """
    cycle, times = Cycle(methods, program), []
    cycle()
    begin = time.perf_counter()
    for index in range(1, cycles + 1):
        due = begin + index * program["seconds"]
        time.sleep(max(0.0, due - time.perf_counter()))
        cycle()
        times.append((time.perf_counter() - due) * 1000.0)
    return times


def soak(methods: dict[str, Any], program: dict[str, Any], cycles: int) -> int:
    """Bytes by which the resident memory grew over this many cycles, after a tenth of them to settle."""
    cycle = Cycle(methods, program)
    for _ in range(cycles // 10):
        cycle()
    before = memory("VmRSS")
    for _ in range(cycles):
        cycle()
    return memory("VmRSS") - before


def first_token(methods: dict[str, Any], program: dict[str, Any], recorded: Any) -> float | None:
    """Milliseconds from the first sample of an utterance to its first symbol, heard live; median of the recorded ones.

    None for a program that is not a transducer by chunks, and where no recording holds a symbol.
    """
    main, delays = program["methods"][0], []
    if [method["name"] for method in program["methods"]] != ["encode_chunk", "predict", "join"]:
        return None
    (predicted,) = methods["predict"](np.array([[-1, 0]], np.int64))
    states, chunks, heard = list[np.ndarray](), 0, 0
    for index in range(int(recorded["encode_chunk.calls"])):
        if recorded[f"encode_chunk.{index}.begins"]:
            states, chunks, heard = examples(main)[1:], 0, 0
        chunks += 1
        begin = time.perf_counter()
        encoded, *states = methods["encode_chunk"](recorded[f"encode_chunk.{index}.x"], *states)
        for frame in range(encoded.shape[1]):
            symbol = methods["join"](encoded[:, frame], predicted)[0].argmax()
            if symbol and not heard:
                delays.append(1000.0 * (chunks * program["seconds"] + time.perf_counter() - begin))
            heard = heard or symbol
    return median(delays) if delays else None


# -- the machine ------------------------------------------------------------------------------------------------


def read(path: Path | str) -> str:
    """What a system file says, nothing where there is none."""
    with suppress(OSError):
        return Path(path).read_text(errors="replace").strip("\0\n")
    return ""


def memory(field: str) -> int:
    """Resident bytes of this process: `VmRSS` now, `VmHWM` at the highest so far."""
    if found := re.search(rf"^{field}:\s*(\d+) kB", read("/proc/self/status"), re.MULTILINE):
        return int(found[1]) * 1024
    import resource  # only where there is no /proc: this peak is inherited from the process that started this one

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def processor() -> str:
    """Name of the CPU or of the board, as far as the system tells."""
    found = re.search(r"^model name\s*: (.*)$", read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else read("/proc/device-tree/model") or platform.machine()


def temperature() -> float | None:
    """Of the hottest sensor, in degrees Celsius; None where none can be read."""
    texts = [read(path) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    return max((int(text) / 1000.0 for text in texts if re.fullmatch(r"-?\d+", text)), default=None)


def binary_bytes(module: str) -> int:
    """Size of the shared libraries that come with the package of a module."""
    folders = map(Path, import_module(module.partition(".")[0]).__path__)
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*.so*") if path.is_file())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--precision", default="float", choices=("float", "int8", "int4"))
    for option, default in (("threads", 1), ("cycles", 200), ("paced", 0), ("soak", 0)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--variant", help="way of using the program, by default its first")
    args = parser.parse_args()
    manifest = json.loads((args.bundle / "bundle.json").read_text())
    program = way(manifest["program"], args.variant)
    folder = args.bundle / manifest["runtimes"][args.runtime]["variants"][program["variant"]]["folder"]
    modules, load, trace = RUNTIMES.get(args.runtime) or added(args.runtime)
    for module in modules:  # Before the clock starts: load time is the model's, not the package's.
        import_module(module)
    before, begin = memory("VmRSS"), time.perf_counter()
    methods = load(folder, args.precision, args.threads, [method["name"] for method in program["methods"]])
    result: dict[str, Any] = {"load_ms": (time.perf_counter() - begin) * 1000.0, "rss_before_bytes": before}
    result["cycles_ms"] = run(methods, program, args.cycles)
    result["peak_rss_bytes"] = memory("VmHWM")
    result["paced_ms"] = run_paced(methods, program, args.paced) if program["seconds"] else []
    if args.soak:
        result["growth_bytes"] = soak(methods, program, args.soak)
    if (args.bundle / PROOF).exists():
        with np.load(args.bundle / PROOF) as recorded:
            result["first_token_ms"] = first_token(methods, program, recorded)
    result["operators"] = trace(folder, args.precision, args.threads, program)
    versions = {name: version(name) for name in ("numpy", *(name.partition(".")[0] for name in modules))}
    result |= {
        "binary_bytes": binary_bytes(modules[0]),
        "cpu": processor(),
        "machine": platform.machine(),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "temperature_c": temperature(),
        "versions": {"python": platform.python_version(), **versions},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
