"""Device profiles: where, with which runtime and how long a bundle is measured."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from todm.errors import TodmError
from todm.export.backend import Precision

FOLDER = Path(__file__).parent / "devices"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Device:
    """One profile, as a YAML file says it."""

    name: str
    runtime: str = "onnx"
    precision: Precision = "float"
    threads: int = Field(default=1, ge=1)
    cycles: int = Field(default=200, ge=1)
    """Timed cycles: main calls, each with its share of the others."""
    reach: Literal["local", "ssh", "browser"] = "local"
    """How to get there: `local` is this machine, `ssh` is `host`, `browser` a headless Chromium on this machine."""
    python: str = ""
    """Command of the Python that has the runtime there, by default this one or `python3`; words before it run it, e.g.
    `taskset 1 python3` or `qemu-aarch64 -L /usr/aarch64-linux-gnu /opt/arm/bin/python3`."""
    host: str = ""
    """`user@host`, or an alias of ~/.ssh/config."""
    port: int | None = Field(default=None, ge=1, le=65535)
    key: str = ""
    """Private key file, by default what ssh itself finds."""
    options: list[str] = Field(default_factory=list)
    """Further `-o` options of ssh."""

    def __post_init__(self) -> None:
        if (self.reach == "ssh") != bool(self.host):
            raise ValueError("give `host: user@name` with `reach: ssh`, and only with it")


def names() -> list[str]:
    """The profiles that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_device(name: str) -> Device:
    """A shipped profile by name, or any YAML file by path.

    Raises:
        TodmError: there is no such profile, or something is wrong in it.
    """
    path = FOLDER / f"{name}.yaml" if name in names() else Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise TodmError(f"unknown device {name!r}; known: {', '.join(names())}, or a .yaml file")
    try:
        return TypeAdapter(Device).validate_python(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise TodmError(f"device {name}: {where}{first['msg'].removeprefix('Value error, ')}") from error
    except yaml.YAMLError as error:
        raise TodmError(f"device {name} is not valid YAML: {' '.join(str(error).split())}") from error
