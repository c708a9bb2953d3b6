"""Device profiles: on what, with which runtime and how long a bundle is measured."""

from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from todm.errors import TodmError
from todm.export.backend import Precision


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
    return sorted(
        path.name.removesuffix(".yaml") for path in _shipped().iterdir() if path.name.endswith(".yaml")
    )


def find_device(name: str) -> Device:
    """A shipped profile by name, or any YAML file by path.

    Raises:
        TodmError: there is no such profile, or something is wrong in it.
    """
    path = Path(name)
    if name in names():
        text = (_shipped() / f"{name}.yaml").read_text()
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        text = path.read_text()
    else:
        raise TodmError(
            f"unknown device {name!r}; known: {', '.join(names())}, or give the path of a .yaml profile"
        )
    try:
        return TypeAdapter(Device).validate_python(yaml.safe_load(text))
    except ValidationError as error:
        first = error.errors()[0]
        raise TodmError(f"device {name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except yaml.YAMLError as error:
        raise TodmError(f"device {name} is not valid YAML: {' '.join(str(error).split())}") from error


def _shipped() -> resources.abc.Traversable:
    return resources.files("todm.export") / "devices"
