"""What is installed, what is missing, and what to type."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from todm import __version__
from todm.run import cpu_name

EXTRAS = {
    "speech": ("lhotse", "kaldi-native-fbank", "soundfile", "scipy", "jiwer", "sentencepiece", "py-nanotts"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "executorch": ("executorch", "torchao"),
    "web": ("selenium",),
}
"""Optional packages by the extra that installs them."""
CORE = (
    "torch",
    "numpy",
    "pydantic",
    "pyyaml",
    "safetensors",
    "tqdm",
    "tensorboard",
    "optuna",
    "scikit-learn",
    "jinja2",
)


def examine() -> dict[str, Any]:
    """The state of this installation: versions, what is missing, and advice, one line each."""
    found: dict[str, str | None] = {}
    for package in (*CORE, *(package for extra in EXTRAS.values() for package in extra)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    advice = []
    if any(found[package] is None for package in CORE):
        advice.append("the installation is incomplete: type `pip install todm`")
    for extra, packages in EXTRAS.items():
        if missing := [package for package in packages if found[package] is None]:
            advice.append(f"{', '.join(missing)} missing: type `pip install 'todm[{extra}]'`")
    if os.environ.get("OMP_NUM_THREADS") != "1":
        advice.append("for small models one thread is fastest: type `export OMP_NUM_THREADS=1`")
    data = os.environ.get("TODM_DATA")
    if data and not Path(data).is_dir():
        advice.append(f"TODM_DATA is {data}, which is not a folder: correct it or `unset TODM_DATA`")
    return {
        "todm": __version__, "python": platform.python_version(), "machine": cpu_name(), "cores": os.cpu_count(),
        "packages": found, "data": data, "advice": advice,
    }  # fmt: skip


def as_text(state: dict[str, Any]) -> str:
    """The state as lines for a terminal."""
    lines = [f"todm {state['todm']}, Python {state['python']}, {state['cores']} cores of {state['machine']}"]
    lines += [f"  {package:20} {number or 'missing'}" for package, number in state["packages"].items()]
    return "\n".join([*lines, *(state["advice"] or ["nothing is missing"])])
