"""A trained run: its supernet, the space of its subnets, and the folders that subnets are kept in."""

import json
from pathlib import Path

from safetensors.torch import load_file, save
from torch import nn

from todm.checkpoint import fingerprint, newest_checkpoint
from todm.dropout import install
from todm.errors import TodmError
from todm.export.device import Device, find_device
from todm.files import atomic_write, read_json, write_json
from todm.program import Program
from todm.run import Run
from todm.search.cost import CostModel
from todm.space import Arch, SearchSpace, activate
from todm.subnet import extract


class Trained:
    """The supernet of a run with its averaged weights, and what its subnets cost.

    Args:
        run: A trained run.
        device: Name or path of the device profile, by default the recipe's.

    Raises:
        TodmError: the run is not trained, or the device is unknown.
    """

    def __init__(self, run: Run, device: str | None = None) -> None:
        self.run, self.recipe = run, run.recipe
        self.profile = device or run.recipe.export.device
        self.device: Device = find_device(self.profile)
        state, _ = newest_checkpoint(run.path / "checkpoints")
        self.task = run.task()
        trained, now = run.info.get("data", {}), self.task.provenance()
        if trained.get("sha256") != now.get("sha256"):
            raise TodmError(
                f"{run.path} was trained on: {trained.get('source')}; now there are: {now.get('source')}; "
                "set TODM_DATA, or the recipe's data, as they were"
            )
        self.supernet: nn.Module = self.task.build()
        install(self.supernet, run.recipe.dropout)
        self.supernet.eval()
        prefix = "module."
        weights = {k.removeprefix(prefix): v for k, v in state["average"].items() if k.startswith(prefix)}
        self.supernet.load_state_dict(weights)
        self.space = SearchSpace.of(self.supernet)
        self.study = fingerprint(weights)
        self.exact = CostModel(self.space, self.built)

    def built(self, arch: Arch) -> tuple[Program, nn.Module]:
        """A standalone subnet and its program."""
        subnet = extract(self.supernet, arch).eval()
        return self.task.program(subnet), subnet

    def extract(self, arch: Arch, name: str | None = None) -> Path:
        """Write a standalone subnet: subnet.safetensors, arch.json, metrics.json; returns its folder."""
        arch = self.space.canonical(arch)
        activate(self.supernet, arch)
        dev = self.task.evaluate(self.supernet, "dev")
        subnet = self.built(arch)[1]
        metric, error = next(iter(dev.items()))
        costs = self.exact(arch)
        name = name or f"{self.device.name}@{costs['weight_bytes'] / 1e6:.2f}MB_{metric}{error:.1f}"
        folder = self.run.path / "subnets" / name
        atomic_write(folder / "subnet.safetensors", save(subnet.state_dict()))
        write_json(folder / "arch.json", arch)
        write_json(folder / "metrics.json", {"name": name, **costs, "dev": dev})
        return folder

    def load(self, folder: Path) -> tuple[Arch, nn.Module]:
        """A subnet from its folder.

        Raises:
            TodmError: a file is missing or damaged, or belongs to another supernet.
        """
        arch: Arch = read_json(folder / "arch.json")
        try:
            subnet = extract(self.supernet, arch).eval()
            subnet.load_state_dict(load_file(folder / "subnet.safetensors"))
        except Exception as error:
            line = " ".join(str(error).split())[:120]
            raise TodmError(f"{folder} does not hold a subnet of {self.run.path}: {line}") from error
        return arch, subnet


def read_arch(text: str, space: SearchSpace) -> Arch:
    """An architecture as a user gives it: `smallest`, `largest`, a JSON object, or a file that holds one.

    Raises:
        TodmError: it is none of these, or does not belong to the space.
    """
    if text in ("smallest", "largest"):
        return space.smallest() if text == "smallest" else space.largest()
    try:
        content = Path(text).read_text(encoding="utf-8") if Path(text).is_file() else text
        return space.check(json.loads(content))
    except (ValueError, AttributeError, TypeError) as error:
        raise TodmError(f"--arch {text!r}: {error}; give smallest, largest, or JSON with every choice") from error
