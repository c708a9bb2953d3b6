"""The model card: README.md of a bundle, with the front matter that Hugging Face reads."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

SHERPA = {"streaming": "sherpa-onnx", "offline": "sherpa-onnx-offline"}
"""Variant -> the program of sherpa-onnx that runs its files."""

LICENSES = {"apache-2.0", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "mit"}
"""Identifiers that Hugging Face knows; any other license is `other`, with its name."""
FRONT = "front.svg"
"""The picture of a run's exported files: error against size."""


def model_card(manifest: Mapping[str, Any]) -> str:
    """Markdown from what bundle.json holds."""
    name, data, program = manifest["name"], manifest["data"], manifest["program"]
    front: dict[str, Any] = {**_license(data["license"]), "tags": ["todm", *manifest["runtimes"]]}
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
        *([f"![error against size of every file of this family]({FRONT})\n"] if FRONT in manifest["files"] else []),
        "## Use\n",
        _use(manifest),
        *_delegation(manifest),
        *_training(manifest.get("run", {})),
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


def _license(text: str) -> dict[str, str]:
    """As the front matter wants it: `CC BY-SA 4.0` is `cc-by-sa-4.0`."""
    identifier = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
    return {"license": identifier} if identifier in LICENSES else {"license": "other", "license_name": text}


def _delegation(manifest: Mapping[str, Any]) -> list[str]:
    """What runs on each runtime's accelerated path, file by file, and what stays behind."""
    rows = [
        (
            f"{row['runtime']} {row['file']}",
            f"{100 * row['nodes_accelerated']:.0f} % of {row['nodes']}",
            f"{100 * row['time_accelerated']:.0f} %",
            f"{100 * row['matrix_accelerated']:.0f} %",
            ", ".join(f"{entry['what']} x{entry['nodes']}" for entry in row["behind"]) or "nothing",
        )
        for row in manifest.get("delegation", ())
    ]
    head = ("file", "nodes accelerated", "time", "matrix work", "left behind")
    return ["## On the accelerated path\n", _table(head, rows)] if rows else []


def _training(run: Mapping[str, Any]) -> list[str]:
    """Where the model comes from, as far as its run says."""
    facts = [f"- {key.replace('_', ' ')}: {value}" for key, value in run.items() if value is not None]
    return ["## Training run\n", *facts, ""] if facts else []


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
