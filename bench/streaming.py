"""A streaming encoder of 3 to 5 million parameters on both runtimes: speed, size, deadlines, memory.

python -m bench.streaming build/streaming

exports it into that folder, or finds it there, and prints the tables of docs/deploy.md: the two runtimes in turns,
chunk by chunk; then each alone, chunks of 320 ms one after another, at the pace of a live signal, and ten thousand of
them watching the memory. Weights are random: speed is not a matter of what they are.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from todm import SearchSpace, extract
from todm.export import Bundle, Device, load_bundle, measure, runner, write_bundle
from todm.export.backend import Precision
from todm.program import Program
from todm.speech.encoder import EncoderConfig
from todm.speech.program import transducer_program
from todm.speech.tokens import Tokens
from todm.speech.transducer import Transducer

ENCODER = EncoderConfig(width=[192], depth=[8], hidden=[768], heads=[16], head_size=16, states=[16], front=128)
VOCABULARY = 500
RUNTIMES = ("onnx", "executorch")
FORMS: tuple[tuple[str, Precision], ...] = (*product(RUNTIMES, ("float", "int8")), ("onnx", "int4"))
CYCLES, PACED, SOAK = 1_000, 1_000, 10_000
BARS: dict[Precision, float] = {"float": 2.0, "int8": 1.0}
"""Most milliseconds of a chunk."""
HERE = Device(name="here", cycles=CYCLES)
Rows = dict[tuple[str, str], dict[str, Any]]
"""What was measured of each runtime and precision, as rows of bench.csv."""


def program() -> tuple[Program, int]:
    """A recogniser, with the streaming encoder alone as what is measured, and its number of parameters."""
    torch.manual_seed(0)
    tokens = Tokens("words", ("<blk>", "▁", *(f"word{i}" for i in range(VOCABULARY - 2))))
    model = Transducer(ENCODER, VOCABULARY, joiner_size=192, embedding_size=192)
    subnet = extract(model, SearchSpace.of(model).largest()).eval()
    whole = transducer_program(subnet, tokens)
    parameters = sum(parameter.numel() for parameter in subnet.parameters())
    return replace(whole, variants={"encoder": ("encode_chunk",), **whole.variants}), parameters


def bundle_in(folder: Path) -> Bundle:
    """The exported recogniser."""
    if (folder / "bundle.json").exists():
        return load_bundle(folder)
    made, parameters = program()
    return write_bundle(
        folder, made, name="streaming", arch={}, params=parameters, macs=0, metrics={},
        data={"name": "none", "license": "cc0-1.0"}, precisions=("float", "int8", "int4"),
    )  # fmt: skip


def in_turns(bundle: Bundle, precision: Precision, cycles: int = CYCLES) -> dict[str, np.ndarray]:
    """Milliseconds of every chunk by runtime, where the runtimes take turns chunk by chunk in this process.

    Each finds the caches as the other left them, and whatever disturbs the machine disturbs both alike.
    """
    program = runner.way(bundle.manifest["program"])
    calls = {runtime: runner.Cycle(bundle.methods(runtime, precision), program) for runtime in RUNTIMES}
    times = {runtime: np.empty(runner.WARM_UP + cycles) for runtime in RUNTIMES}
    for index in range(runner.WARM_UP + cycles):
        for runtime, call in calls.items():
            begin = time.perf_counter()
            call()
            times[runtime][index] = (time.perf_counter() - begin) * 1000.0
    return {runtime: each[runner.WARM_UP :] for runtime, each in times.items()}


def turns_table(bundle: Bundle) -> str:
    """Markdown: medians of `in_turns` for each precision."""
    lines = ["| in turns | onnx p50 ms | executorch p50 ms | executorch / onnx |", "|---|---|---|---|"]
    for precision in BARS:
        onnx, executorch = (float(np.median(times)) for times in in_turns(bundle, precision).values())
        lines.append(f"| {precision} | {onnx:.2f} | {executorch:.2f} | {executorch / onnx:.2f} |")
    return "\n".join(lines)


def at_full_speed(bundle: Bundle) -> Rows:
    """Latencies and memory, one form after another."""
    return {form: measure(bundle, HERE, *form, soak=SOAK) for form in FORMS}


def live(bundle: Bundle) -> Rows:
    """Deadlines, all forms side by side: at the pace of speech each sleeps nearly all the time."""
    with ThreadPoolExecutor(len(FORMS)) as pool:
        rows = pool.map(lambda form: measure(bundle, replace(HERE, cycles=1), *form, paced=PACED), FORMS)
        return dict(zip(FORMS, rows, strict=True))


def table(bundle: Bundle, rows: Rows, paced: Rows) -> str:
    """Markdown."""
    lines = [
        f"{bundle.manifest['params'] / 1e6:.2f} M parameters, one thread of {rows[FORMS[0]]['cpu']}, {date.today()}, "
        f"{', '.join(dict.fromkeys(row['versions'] for row in rows.values()))}:",
        "",
        f"| chunks of 320 ms | p50 ms | p90 ms | p99 ms | bar | live p50 ms | live p99 ms | missed of {PACED:,} "
        f"| growth in {SOAK:,} | size MB | of float |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (runtime, precision), row in rows.items():
        alive = paced[runtime, precision]
        sizes = [bundle.size_bytes(runtime, each, "streaming") for each in (precision, "float")]
        cells = [
            f"{runtime} {precision}", *(f"{row[f'latency_{p}_ms']:.2f}" for p in ("p50", "p90", "p99")),
            BARS.get(precision, ""), *(f"{alive[f'paced_{p}_ms']:.2f}" for p in ("p50", "p99")),
            alive["deadline_misses"], f"{row['memory_growth_bytes'] / 1024:.0f} KiB",
            f"{sizes[0] / 1e6:.2f}", f"{sizes[0] / sizes[1]:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    found = bundle_in(Path(sys.argv[1]))
    print(turns_table(found), end="\n\n")
    print(table(found, at_full_speed(found), live(found)))
