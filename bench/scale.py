"""Two processes against one on the digits recipe, its wait for data, and an epoch of a hundred thousand utterances.

Two processes share the batch of one, which is what must change no weight, or have such a batch each, which is how many
are used: the same audio in half the updates. How much two processes that know nothing of each other do is the most
that the machine allows. An update of the demo's small net takes nearly as long with half of its small batch, so the net
of the LibriSpeech recipe shares a larger one, too (its own, of 1,200 s, would take too long here). Waiting is that of
the demo's whole training, data prepared beside it as everywhere else.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import yaml

UTTERANCES = 100_000
CLOCK = "seconds"


@dataclass(frozen=True)
class Size:
    """Of a training on digits: utterances, audio in a batch of one process, updates counted and before them."""

    utterances: int
    seconds: int
    updates: int
    warm: int
    encoder: Mapping[str, object] = field(default_factory=dict)
    """Where its net is not the digits'."""


LIBRISPEECH = yaml.safe_load(Path("recipes/librispeech/recipe.yaml").read_text(encoding="utf-8"))
DEMO = Size(400, 50, 100, 20)
LARGE = Size(4000, 480, 3, 1, LIBRISPEECH["model"]["encoder"])


def train(processes: int, size: Size, batches: int = 1) -> dict[str, float]:
    """Wall time of the counted updates as the log has it, or of fewer with as many batches in one."""
    with tempfile.TemporaryDirectory() as folder:
        fewer = replace(size, seconds=size.seconds * batches, updates=size.updates // batches)
        process = start(folder, processes, fewer)
        if process.wait():
            raise RuntimeError("the training of the benchmark failed")
        found = counted(folder, size.warm)
    return found | {"cpu_seconds": processes * found["seconds"]}


def independent() -> dict[str, float]:
    """Two trainings of one process each at the same time, each with half of the updates."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        folders, half = (first, second), replace(DEMO, updates=DEMO.updates // 2)
        processes = [start(folder, 1, half) for folder in folders]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError("a training of the benchmark failed")
        slowest = max(counted(folder, half.warm)["seconds"] for folder in folders)
    return {"seconds": slowest, "cpu_seconds": 2 * slowest, "peak_mb": 0.0}


def start(folder: str, processes: int, size: Size) -> subprocess.Popen[bytes]:
    """Begin a training of the digits in a folder."""
    updates = str(size.warm + size.updates)
    command = [
        "-m", "todm", "train", "digits", "--out", f"{folder}/run", "--data.train", str(size.utterances), "--data.dev",
        "40", "--data.test", "20", "--data.batching.workers", "0", "--data.batching.warm_updates", "0",
        "--data.batching.seconds", str(size.seconds), "--training.updates", updates, "--training.growth", "0",
        "--training.evaluate_every", updates, "--training.checkpoint_every", updates,
        *(str(part) for key, value in size.encoder.items() for part in (f"--model.encoder.{key}", value)),
    ]  # fmt: skip
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [sys.executable, *(several if processes > 1 else []), *command], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "TODM_CACHE": f"{folder}/cache"},
    )  # fmt: skip


def counted(folder: str, warm: int) -> dict[str, float]:
    """Wall time from the last of the first `warm` updates to the last but one: the last waits for the evaluation."""
    rows = [json.loads(line) for line in Path(folder, "run", "log.jsonl").read_text().splitlines()]
    updates, seconds = len(rows) - 1 - warm, rows[-2]["seconds"] - rows[warm - 1]["seconds"]
    return {"seconds": seconds * (updates + 1) / updates, "peak_mb": 0.0, "waiting": rows[-2]["waiting"]}


def demo() -> dict[str, float]:
    """The training of `make demo`, with the share of its time in which it waits for data."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "todm", "train", "digits", "--out", f"{folder}/run"]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "TODM_CACHE": f"{folder}/cache"})
        rows = [json.loads(line) for line in Path(folder, "run", "log.jsonl").read_text().splitlines()]
    return {
        "seconds": rows[-1]["seconds"],
        "cpu_seconds": rows[-1]["seconds"],
        "peak_mb": 0.0,
        "waiting": rows[-1]["waiting"],
    }


def epoch() -> dict[str, float]:
    """One epoch through the training loader in this process; `peak_mb` is the growth after its first twentieth."""
    import soundfile
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    from todm.speech.batches import train_batches
    from todm.speech.corpus import open_cuts
    from todm.speech.tokens import Tokens

    rng, duration = np.random.default_rng(0), 0.25
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(f"{folder}/long.wav", 0.1 * rng.standard_normal(16_000 * 60), 16_000)
        recording = Recording.from_file(f"{folder}/long.wav")

        def cuts() -> Iterator[MonoCut]:
            for index in range(UTTERANCES):
                start = round(float(rng.uniform(0, 59)), 3)
                said = SupervisionSegment(f"{index}", recording.id, 0.0, duration, text="a b")
                yield MonoCut(f"{index}", start, duration, 0, recording=recording, supervisions=[said])

        with CutSet.open_writer(f"{folder}/cuts.jsonl.gz") as writer:
            for cut in cuts():
                writer.write(cut)
        batches = train_batches(
            open_cuts(f"{folder}/cuts.jsonl.gz"), Tokens.build("words", ["a b"]), seconds_per_batch=60, seed=0,
            workers=0,
        )  # fmt: skip
        begin, seen, first, most = time.perf_counter(), 0, 0.0, 0.0
        for batch in islice(batches, UTTERANCES):
            seen += len(batch.texts)
            most = max(most, resident())
            if seen >= UTTERANCES // 20 and not first:
                first = most
            if seen >= UTTERANCES:
                break
        seconds = time.perf_counter() - begin
    return {"seconds": seconds, "cpu_seconds": time.process_time(), "peak_mb": most - first}


def resident() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


CASES = {
    f"batches of {DEMO.seconds} s, the net of digits": {
        "one process": lambda: train(1, DEMO),
        "two processes, half a batch each": lambda: train(2, DEMO),
        "two processes, a batch each": lambda: train(2, DEMO, batches=2),
        "two trainings at once": independent,
    },
    f"batches of {LARGE.seconds} s, the net of librispeech": {
        "one process": lambda: train(1, LARGE),
        "two processes, half a batch each": lambda: train(2, LARGE),
    },
    "the demo's training": {"waiting for data": demo},
    f"epoch of {UTTERANCES:,} utterances": {"growth of memory": epoch},
}
BARS = dict.fromkeys(("two processes, half a batch each", "two processes, a batch each"), (1 / 1.85, None))
