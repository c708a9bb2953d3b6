"""The model card: README.md of a bundle, with the front matter that Hugging Face reads."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

SHERPA = {"streaming": "sherpa-onnx", "offline": "sherpa-onnx-offline"}
"""Variant -> the program of sherpa-onnx that runs its files."""


def model_card(manifest: Mapping[str, Any]) -> str:
    """Markdown from what bundle.json holds."""
    name, data, program = manifest["name"], manifest["data"], manifest["program"]
    front: dict[str, Any] = {"license": data["license"], "tags": ["todm", *manifest["runtimes"]]}
    metrics = [{"type": key, "value": value} for key, value in manifest["metrics"].items()]
    if manifest["task"]:
        front["pipeline_tag"] = manifest["task"]
        result = {
            "task": {"type": manifest["task"]},
            "dataset": {"name": data["name"], "type": data["name"]},
            "metrics": metrics,
        }
        front["model-index"] = [{"name": name, "results": [result]}]
    front["metrics"] = list(manifest["metrics"])
    facts = [f"{manifest['params']:,} parameters", f"{manifest['macs']:,} multiply-accumulates a call"]
    if program["seconds"]:
        facts.append(f"{1000 * program['seconds']:g} ms of signal a call, states carried")
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# {name}\n",
        f"{'; '.join(facts)}. Trained on {data['name']} (license: {data['license']}). "
        f"Architecture: {', '.join(f'{key} {value}' for key, value in manifest['arch'].items())}.\n",
        _results(manifest),
        "## Use\n",
        _use(manifest),
        "## Files\n",
        _table(("file", "bytes"), ((f"`{path}`", each["size_bytes"]) for path, each in manifest["files"].items())),
        "`bundle.json` holds the signature of every method, the architecture, all measurements, and the "
        "SHA-256 of every file; todm checks them before it loads any.",
    ]
    return "\n".join(lines) + "\n"


def _results(manifest: Mapping[str, Any]) -> str:
    """A row for each runtime and precision; its measurements are the latest recorded ones."""
    metric = next(iter(manifest["metrics"]), "metric")
    measured = {(row["runtime"], row["precision"]): row for row in manifest["measurements"]}
    rows = [("PyTorch", "float", "", manifest["metrics"].get(metric, ""), "", "", "")]
    for runtime, entry in manifest["runtimes"].items():
        default = next(iter(entry["variants"].values()))
        for precision, paths in default["files"].items():
            row = measured.get((runtime, precision), {})
            size = sum(manifest["files"][path]["size_bytes"] for path in paths)
            latency = f"{row['latency_p50_ms']:.2f} / {row['latency_p90_ms']:.2f}" if row else ""
            where = f"{row['device']}: {row['cpu']}, threads {row['threads']}" if row else ""
            rtf = row.get("rtf")
            rows.append(
                (
                    runtime,
                    precision,
                    f"{size / 1e6:.2f}",
                    row.get(metric, ""),
                    latency,
                    "" if rtf is None else rtf,
                    where,
                )
            )
    return _table(("runtime", "precision", "MB", metric, "p50 / p90 ms", "real-time factor", "measured on"), rows)


def _use(manifest: Mapping[str, Any]) -> str:
    """The exact commands; for a recogniser also those of sherpa-onnx and of the page."""
    if manifest["task"] != "automatic-speech-recognition":
        return '```python\nfrom todm.export import load_bundle\n\nload_bundle(".").methods("onnx")\n```\n'
    commands = ["todm transcribe . a.wav"]
    files = {method["name"]: method["file"] for method in manifest["program"]["methods"]}
    for variant, entry in manifest["runtimes"].get("onnx", {}).get("variants", {}).items():
        if variant in SHERPA:
            folder, names = entry["folder"], manifest["program"]["variants"][variant]
            parts = " ".join(f"--{files[name]}={folder}/{files[name]}.onnx" for name in names)
            commands.append(f"{SHERPA[variant]} {parts} --tokens={folder}/tokens.txt a.wav")
    if "web" in manifest["runtimes"]:
        commands.append("python3 -m http.server --directory web  # then open http://localhost:8000")
    return "```sh\n" + "\n".join(commands) + "\n```\n"


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"
