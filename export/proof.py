"""A few real calls with what PyTorch answered, carried in the bundle: parity that can be checked without the model.

`proof.npz` holds for call i of a method `METHOD.i.INPUT` for every input that is no state, `METHOD.i.OUTPUT` for every
output that is none, `METHOD.i.begins` where a stream begins, and `METHOD.calls`. States are carried, not stored.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from todm.export.bundle import Bundle
from todm.export.calibrate import Call
from todm.export.parity import FAR, TINY
from todm.export.runner import PROOF
from todm.program import Method, Program, eager

CALLS = 24
"""Of each method, at most."""
BYTES = 160 * 1024
"""Of each method, about: a method of large inputs has fewer calls, but at least two."""


def attach(bundle: Bundle, program: Program, calls: Sequence[Call]) -> None:
    """Put the first recorded calls and PyTorch's answers into a bundle, and how far each of its files is off.

    A method that was not recorded is asked with its example inputs.
    """
    reference = eager(program)
    arrays: dict[str, Any] = {}
    for method in program.methods:
        mine = [inputs for name, inputs in calls if name == method.name][:CALLS]
        asked = _asked(method, reference[method.name], mine or [tuple(x.numpy() for x in method.inputs.values())])
        for index, entry in enumerate(asked):
            arrays |= {f"{method.name}.{index}.{name}": value for name, value in entry.items()}
        arrays[f"{method.name}.calls"] = np.array(len(asked))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    bundle.record(files={PROOF: buffer.getvalue()})
    bundle.record(proof=[row for form in bundle.forms() for row in replay(bundle, **form)])


def _asked(method: Method, call: Any, calls: Sequence[tuple[np.ndarray, ...]]) -> list[dict[str, np.ndarray]]:
    """Inputs and answers of each call without the states, and whether a stream begins with it."""
    entries: list[dict[str, np.ndarray]] = []
    states: dict[str, np.ndarray] = {}
    for inputs in calls:
        named = dict(zip(method.inputs, inputs, strict=True))
        begins = not any(named[name].any() for name in method.states.values())
        if not begins:
            named |= states
        outputs = dict(zip(method.outputs, call(*named.values()), strict=True))
        states = {into: outputs[out] for out, into in method.states.items()}
        kept = {name: value for name, value in named.items() if name not in states}
        kept |= {name: value for name, value in outputs.items() if name not in method.states}
        entries.append({**kept, "begins": np.array(begins)})
        if len(entries) > 1 and sum(value.nbytes for entry in entries for value in entry.values()) > BYTES:
            break
    return entries


def replay(bundle: Bundle, runtime: str, precision: Any, variant: str) -> list[dict[str, Any]]:
    """Run the carried calls through one form of a bundle: a row for each method, `max_rel` as in `compare`."""
    rows, methods = [], bundle.methods(runtime, precision, variant=variant)
    form = {"runtime": runtime, "precision": precision, "variant": variant}
    with np.load(bundle.folder / PROOF) as recorded:
        for method in bundle.manifest["program"]["methods"]:
            if method["name"] in methods:
                far = _replayed(method, methods[method["name"]], recorded)
                rows.append({**form, "method": method["name"], "max_rel": far})
    return rows


def _replayed(method: Mapping[str, Any], call: Any, recorded: Mapping[str, np.ndarray]) -> float:
    name, states = method["name"], method["states"]
    carried: dict[str, np.ndarray] = {}
    difference = dict.fromkeys(method["outputs"], 0.0)
    largest = dict.fromkeys(method["outputs"], TINY)
    for index in range(int(recorded[f"{name}.calls"])):
        if recorded[f"{name}.{index}.begins"]:
            carried = {spec["name"]: np.zeros(spec["shape"], spec["dtype"]) for spec in method["inputs"]}
        inputs = [
            carried[spec["name"]] if spec["name"] in states.values() else recorded[f"{name}.{index}.{spec['name']}"]
            for spec in method["inputs"]
        ]
        outputs = dict(zip(method["outputs"], call(*inputs), strict=True))
        carried = {into: outputs[out] for out, into in states.items()}
        for output, got in outputs.items():
            if output not in states:
                expected = recorded[f"{name}.{index}.{output}"]
                distance = np.abs(expected.astype(np.float64) - got).max() if expected.shape == got.shape else np.nan
                difference[output] = max(difference[output], float(distance) if np.isfinite(distance) else FAR)
                largest[output] = max(largest[output], float(np.abs(expected).max()))
    return max(difference[output] / largest[output] for output in difference)
