"""Checkpoints: one safetensors file each, written atomically, holding everything that an exact resume needs."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from todm.errors import TodmError
from todm.files import atomic_write

KEEP = 2
"""Newest checkpoints that stay on disk: if the last is damaged, the one before is there."""


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of a nested structure into `tensors`, leaving references in their places."""
    if isinstance(value, Tensor):
        # Keys may hold dots, and 0 is not "0".
        while path in tensors:
            path += "'"
        tensors[path] = value.detach().cpu().contiguous()
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[key, _flatten(item, f"{path}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_flatten(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    return {"value": value}


def _restore(node: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _restore(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_restore(item, tensors) for item in content]
        return tuple(items) if kind == "tuple" else items
    return content


def save_checkpoint(folder: Path, update: int, state: dict[str, Any]) -> Path:
    """Write `state` (nested dictionaries of tensors and plain values) as the checkpoint after `update` updates."""
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_flatten(state, "state", tensors))
    # Views of one storage (stacked optimiser state) are written one by one.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    path = atomic_write(folder / f"update-{update:07d}.safetensors", save(tensors, {"structure": structure}))
    killed = folder.glob(".update-*.part")  # what a process that was killed had half written
    for old in (*list_checkpoints(folder)[:-KEEP], *killed):
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    return sorted(path for path in folder.glob("update-*.safetensors") if re.search(r"-\d{7}\.", path.name))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        TodmError: the file is missing, truncated or not a checkpoint.
    """
    try:
        with safe_open(path, "pt") as file:
            structure = json.loads(file.metadata()["structure"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _restore(structure, tensors)
    except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise TodmError(f"checkpoint {path} is damaged ({error}); delete it and type the command again") from error


def newest_checkpoint(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The newest checkpoint that can be read, and a warning for each newer one that cannot.

    Raises:
        TodmError: there is none, or all are damaged.
    """
    warnings: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(path), warnings
        except TodmError as error:
            warnings.append(str(error))
    raise TodmError(warnings[0] if warnings else f"no checkpoint in {folder}; type `todm train` first")


def fingerprint(weights: dict[str, Tensor]) -> str:
    """A short name for a set of weights: equal weights, equal name."""
    import hashlib

    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(
            name.encode() + weights[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:12]
