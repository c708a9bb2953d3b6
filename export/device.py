"""Device profiles: on what, with which runtime and how long a bundle is measured."""

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
    reach: Literal["local"] = "local"
    """How to get there: `local` is this machine."""


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
        raise TodmError(f"device {name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except yaml.YAMLError as error:
        raise TodmError(f"device {name} is not valid YAML: {' '.join(str(error).split())}") from error
