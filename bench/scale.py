"""Two processes against one on the digits recipe, its wait for data, and an epoch of a hundred thousand utterances.

Two processes share the batch of one, which is what must change no weight, or have such a batch each, which is how many
are used: the same audio in half the updates. How much two processes that know nothing of each other do is the most
that the machine allows. Waiting is that of the demo's whole training, data prepared beside it as everywhere else.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

UPDATES, WARM = 100, 20
"""Updates counted, and those before them that are not."""
SECONDS = 50
"""Audio in a batch of one process."""
UTTERANCES = 100_000
CLOCK = "seconds"


def train(processes: int, batches: int = 1) -> dict[str, float]:
    """Wall time of the counted updates as the log has it, or of fewer with as many batches in one."""
    updates = WARM + UPDATES // batches
    with tempfile.TemporaryDirectory() as folder:
        process = start(folder, processes, updates, SECONDS * batches)
        if process.wait():
            raise RuntimeError("the training of the benchmark failed")
        return counted(folder) | {"cpu_seconds": processes * counted(folder)["seconds"]}


def independent() -> dict[str, float]:
    """Two trainings of one process each at the same time, each with half of the updates."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        folders, updates = (first, second), WARM + UPDATES // 2
        processes = [start(folder, 1, updates, SECONDS) for folder in folders]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError("a training of the benchmark failed")
        slowest = max(counted(folder)["seconds"] for folder in folders)
    return {"seconds": slowest, "cpu_seconds": 2 * slowest, "peak_mb": 0.0}


def start(folder: str, processes: int, updates: int, seconds: int) -> subprocess.Popen[bytes]:
    """Begin a training of the digits in a folder."""
    command = [
        "-m", "todm", "train", "digits", "--out", f"{folder}/run", "--data.train", "400", "--data.dev", "40",
        "--data.test", "20", "--data.batching.workers", "0", "--data.batching.warm_updates", "0",
        "--data.batching.seconds", str(seconds), "--training.updates", str(updates), "--training.growth", "0",
        "--training.evaluate_every", str(updates), "--training.checkpoint_every", str(updates),
    ]  # fmt: skip
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [sys.executable, *(several if processes > 1 else []), *command], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "TODM_CACHE": f"{folder}/cache"},
    )  # fmt: skip


def counted(folder: str) -> dict[str, float]:
    """Wall time from the last update that is not counted to the last but one: the last waits for the evaluation."""
    rows = [json.loads(line) for line in Path(folder, "run", "log.jsonl").read_text().splitlines()]
    updates, seconds = len(rows) - 1 - WARM, rows[-2]["seconds"] - rows[WARM - 1]["seconds"]
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
    "training": {
        "one process": lambda: train(1),
        "two processes, half a batch each": lambda: train(2),
        "two processes, a batch each": lambda: train(2, batches=2),
        "two trainings at once": independent,
    },
    "the demo's training": {"waiting for data": demo},
    f"epoch of {UTTERANCES:,} utterances": {"growth of memory": epoch},
}
BARS = dict.fromkeys(("two processes, half a batch each", "two processes, a batch each"), (1 / 1.85, None))
