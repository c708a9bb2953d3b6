"""A run folder with every part of a run, for the tests of the report."""

import csv
import json
import math
from pathlib import Path
from typing import Any

SIZES = {"net@0.1MB_wer3.9": 62_112, "net@0.3MB_wer2.4": 158_400, "net@0.7MB_wer1.6": 402_816}
SIZES["net@1.6MB_wer1.3"] = 911_232
ERRORS = dict(zip(SIZES, (3.87, 2.41, 1.62, 1.34), strict=True))
RUNTIMES = {"onnx": (1.10, 0.30, 9.1e6), "executorch": (1.04, 0.42, 4.2e6)}
DATA = {"source": "FSDD recordings (real digits, 6 speakers, official split by take)", "test_utterances": 600}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def arch_of(params: int) -> dict[str, int]:
    width = 8 * round(math.sqrt(params) / 60)
    return {"depth": 2 + params // 250_000} | {f"ff{n}": width + 16 * (n % 2) for n in range(6)}


def bench_rows(metric: str = "wer") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for subnet, params in SIZES.items():
        for runtime, (overhead, speed, memory) in RUNTIMES.items():
            for precision, bytes_each, rough in (("float", 4.0, 0.0), ("int8", 1.35, 0.11)):
                latency = speed * (params / 1e5) ** 0.7 * (1 if precision == "float" else 0.6)
                size = int(params * bytes_each * overhead + 21_000)
                row: dict[str, Any] = {
                    "subnet": subnet,
                    "device": "local",
                    "runtime": runtime,
                    "precision": precision,
                }
                row |= {"size_bytes": size, "params": params, "macs": params * 9}
                row |= {"latency_p50_ms": round(latency, 4), "latency_p90_ms": round(latency * 1.12, 4)}
                row |= {"latency_p99_ms": round(latency * 1.9, 4), "rtf": round(latency / 320, 6)}
                row |= {"load_ms": round(5 + size / 4e5, 2), "peak_rss_bytes": int(61e6 + memory + size)}
                row |= {"peak_memory_bytes": int(memory + 1.6 * size)}
                row |= {metric: round(ERRORS[subnet] + rough * (1.5 if params > 9e5 else 1), 2)}
                rows.append(row | {"threads": 1, "cpu": "Some CPU @ 2.20GHz"})
    return rows


def parity_rows() -> list[dict[str, Any]]:
    rows = []
    for rank, (subnet, params) in enumerate(SIZES.items()):
        zeros = {"max_abs_diff": 0, "max_rel_diff": 0, "words_changed": 0, "utterances_changed": 0}
        rows.append({"subnet": subnet, "form": "pytorch", **zeros, "wer": ERRORS[subnet], "size_bytes": params * 4})
        for row in bench_rows()[4 * rank : 4 * rank + 4]:
            rough = row["precision"] == "int8"
            diff = (0.031 if rough else 3.1e-6) * (1 + rank / 3 + (row["runtime"] == "onnx") / 7)
            found = {"subnet": subnet, "form": f"{row['runtime']} {row['precision']}", "max_abs_diff": diff}
            found |= {"max_rel_diff": diff / 9, "words_changed": 3 + rank if rough else 0}
            found |= {"utterances_changed": 2 + rank if rough else 0}
            rows.append(found | {"wer": row["wer"], "size_bytes": row["size_bytes"]})
    return rows


def log_lines() -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for update in range(1, 1201, 5):
        loss = 18 * math.exp(-update / 170) + 0.35 + 0.08 * math.sin(update)
        line = {"update": update, "loss": loss * 1.1, "loss_largest": loss, "loss_smallest": loss * 1.45}
        divergence = 0.02 + 0.4 * math.exp(-update / 300) if update > 300 else 0.0
        lines.append(line | {"divergence": divergence, "lr": 0.02, "grad_norm": 2.0, "seconds": update * 0.2})
    for update in range(100, 1201, 100):
        wer = 96 * math.exp(-update / 160) + 1.5
        lines.append({"update": update, "dev": {"largest": {"wer": wer}, "smallest": {"wer": wer * 1.3 + 1.6}}})
    return lines


def make_run(folder: Path) -> Path:
    """A run folder with every part, and the numbers a real run has."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = {
        "cpu": "Some CPU @ 2.20GHz",
        "cores": 2,
        "memory_bytes": 8.2e9,
        "os": "Linux",
        "python": "3.11",
    }
    run = {"name": "digits", "recipe": "digits", "created": "2026-03-01 10:00", "threads": 1, "seed": 0}
    run |= {"machine": machine, "versions": {"todm": "0.1.0", "torch": "2.14.1"}, "git_commit": "0123abc"}
    run |= {"data": DATA, "seconds": {"train": 252.4, "search": 61.0, "export": 88.2}}
    (folder / "run.json").write_text(json.dumps(run))
    # Ends as a killed run ends: in the middle of a line.
    log = "".join(json.dumps(line) + "\n" for line in log_lines()) + '{"update": 1300, "lo'
    (folder / "log.jsonl").write_text(log)
    candidates = []
    for n in range(80):
        params, off = int(55_000 * 17 ** (n / 79)), n * 37 % 11
        row = {"arch": json.dumps(arch_of(params)), "wer": 1.4 + 2.6 * (6e4 / params) ** 0.7 + off / 9}
        row |= {"params": params, "macs": params * 9, "size_bytes": params * 4 + 21_000}
        candidates.append(row | {"latency_p90_ms": 0.4 * (params / 1e5) ** 0.7, "front": int(off == 0)})
    write_csv(folder / "search/front.csv", candidates)
    quality = {"latency_p90_ms": {"mape": 4.3, "rank_correlation": 0.981}}
    (folder / "search/predictor.json").write_text(json.dumps(quality))
    for subnet, params in SIZES.items():
        bundle = folder / "subnets" / subnet / "bundle/onnx/streaming"
        bundle.mkdir(parents=True)
        (bundle / "tokens.txt").write_text("<blk> 0\n")
        (folder / "subnets" / subnet / "arch.json").write_text(json.dumps(arch_of(params)))
        scores = {"dev": {"wer": ERRORS[subnet] - 0.2}, "test": {"wer": ERRORS[subnet]}}
        metrics = {"name": subnet, "params": params, "macs": params * 9, **scores}
        (folder / "subnets" / subnet / "metrics.json").write_text(json.dumps(metrics))
    write_csv(folder / "parity.csv", parity_rows())
    write_csv(folder / "bench.csv", bench_rows())
    return folder
