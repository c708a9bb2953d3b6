"""A recipe: everything a run is asked to do. The same dataclasses give the YAML keys, the flags and the help."""

import dataclasses
import difflib
import importlib
import importlib.util
import sys
import types
import typing
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from todm.errors import TodmError

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)
Fraction = typing.Annotated[float, Field(ge=0, le=1)]
Count = typing.Annotated[int, Field(ge=1)]
Positive = typing.Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=STRICT)
class Training:
    """How the supernet is trained."""

    updates: Count = 1500
    """Optimiser steps."""
    nets: Literal["sandwich", "random", "alone"] = "sandwich"
    """What each update trains: the sandwich (largest, smallest, random nets), as many random nets, or one net alone."""
    arch: Literal["largest", "smallest"] | dict[str, int] | None = None
    """The architecture that is trained alone."""
    optimizer: Literal["scaled_adam", "adamw", "sgd"] = "scaled_adam"
    """Optimiser; sgd has a momentum of 0.9."""
    lr: Positive | None = None
    """Base learning rate; by default 0.03 for scaled_adam (relative to each tensor's size), 0.001 for adamw, 0.1 for
    sgd."""
    weight_decay: NonNegativeFloat | None = None
    """Of adamw and sgd, by default 0.01 and 0."""
    lr_schedule: Literal["eden", "cosine", "constant"] = "eden"
    """How the rate falls after the warm-up."""
    lr_batches: Positive = 500
    """Updates after which Eden's rate has fallen by 2^-1/4."""
    warmup: NonNegativeInt = 100
    """Updates of linear warm-up from half the rate."""
    clipping_scale: Positive | None = 2.0
    """ScaledAdam's gradients are clipped to this multiple of the median norm; null turns it off."""
    growth: Fraction = 0.6
    """Fraction of the updates in which the net grows: it begins with the fewest layers, learns the task's rough shape
    sooner than a deep net, at a fraction of the cost, and the deeper nets start from there."""
    growing: Literal["largest", "ends"] = "largest"
    """What is trained meanwhile: the largest net of that depth, or in every second update the smallest, too."""
    random_nets: NonNegativeInt = 1
    """Random subnets in each sandwich, beside the largest and the smallest."""
    students: Positive | None = None
    """Smaller nets that an update trains after growth, on average: beside the largest the smallest and the random ones
    take turns, with 0.5 one in every second update. null: all in each."""
    students_start: Fraction = 0.0
    """Fraction of the updates after which smaller nets are trained beside the largest; between growth and then the
    largest learns alone."""
    teacher: Literal["live", "average"] = "live"
    """Who teaches the subnets: the largest net as it stands, or its running average."""
    divergence: Literal["none", "kl", "adaptive", "squared"] = "none"
    """What a subnet's distance from the largest net is measured with; none: every net learns from the labels alone."""
    distillation: NonNegativeFloat = 0.1
    """Weight of that distance beside the loss on the labels."""
    distillation_start: Fraction = 0.8
    """Fraction of the updates after which distillation ramps up to its weight, over a tenth of training."""
    average: Fraction = 0.99
    """Decay of the running average of the weights, which is evaluated and deployed; 0: the weights as they are."""
    window: Fraction = 0.25
    """Last part of training whose weights are averaged evenly too: of that, the running average and the last weights,
    what errs least on the dev set is deployed. 0: the running average."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the forward pass; losses and weights stay in float32."""
    evaluate_every: Count = 250
    """Updates between evaluations of the largest and the smallest net on the dev set."""
    checkpoint_every: Count = 100
    """Updates between checkpoints."""

    def __post_init__(self) -> None:
        if (self.nets == "alone") != (self.arch is not None):
            raise ValueError("arch and nets: alone belong together: one names the net, the other trains it alone")
        if self.optimizer == "scaled_adam" and self.weight_decay is not None:
            raise ValueError("weight_decay is for adamw and sgd; scaled_adam learns the size of each tensor instead")
        fields = type(self).__dataclass_fields__
        for name in ("distillation", "distillation_start", "teacher"):
            if self.divergence == "none" and getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} does nothing without a divergence; give divergence, e.g. kl, or leave it out")
        if self.distils and self.distillation_start < self.growth:
            raise ValueError("distillation_start is before the end of growth: there is no teacher yet")
        if self.growing == "ends" and self.nets == "alone":
            raise ValueError("growing: ends is for a family; a net trained alone has no smaller one beside it")
        if self.students is not None and self.nets != "sandwich":
            raise ValueError("students is for nets: sandwich: only there do smaller nets take turns beside the largest")
        if self.students_start > 0 and self.nets != "sandwich":
            raise ValueError("students_start is for nets: sandwich: only there is a largest net to begin with")
        if 0 < self.students_start <= self.growth:
            raise ValueError("students_start is within growth, where it does nothing; set it later, or leave it out")
        if self.growing == "ends" and self.growth == 0:
            raise ValueError("growing: ends does nothing without growth; give growth, or leave growing out")

    @property
    def distils(self) -> bool:
        """Whether a net teaches others: only the sandwich has a largest one."""
        return self.nets == "sandwich" and self.divergence != "none"


@dataclass(frozen=True, config=STRICT)
class Search:
    """How subnets are looked for."""

    trials: Count = 40
    """Architectures whose error is measured on the dev set."""
    measured: Count = 8
    """Architectures that are exported and measured on the device to predict the cost of all others."""
    precision: Literal["float", "int8"] = "float"
    """Number format whose error is minimised; int8 is simulated, for every candidate."""
    storage: str = ""
    """Database that several machines search with, e.g. postgresql+psycopg://host/todm; by default a file in the run."""
    family: Count = 4
    """Subnets of the front that are exported at the end, from the smallest to the largest."""


@dataclass(frozen=True, config=STRICT)
class Export:
    """What is made of each subnet."""

    runtimes: list[str] = field(default_factory=lambda: ["onnx", "executorch"])
    """Runtimes to export for."""
    precisions: list[Literal["float", "int8", "int4"]] = field(default_factory=lambda: ["float", "int8"])
    """Number formats of the weights; int4 where a runtime has it."""
    device: str = "local"
    """Device profile that search and benchmarks measure on."""
    max_difference: Positive | None = 1e-3
    """Largest difference of a float file's outputs from PyTorch's, relative to the largest value; null: any."""
    max_changed: NonNegativeFloat | None = 0.5
    """Percent of the test set's decisions that a float file may change; null: any."""
    max_wer_loss: NonNegativeFloat | None = 0.2
    """Points of word error rate that int8 may cost on the dev set: layers return to float until it holds; null: any."""
    delegated: Fraction = 1.0
    """Share of the matrix operators that must run on a runtime's accelerated path; an export with less is refused."""


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """Everything a run is asked to do."""

    name: str
    """Name of the run; its folder is runs/NAME unless --out says otherwise."""
    task: str
    """Class of the task: `package.module:Class`, or `file.py:Class` beside the recipe."""
    benchmark: str = ""
    """Function `package.module:function` that `todm run` calls instead, where a recipe compares and makes no family."""
    seed: NonNegativeInt = 0
    """Of initialisation, data order, sampling and search."""
    data: dict[str, Any] = field(default_factory=dict)
    """Options of the task's data; its class `Data` declares them."""
    model: dict[str, Any] = field(default_factory=dict)
    """Options of the task's model; its class `Model` declares them."""
    dropout: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What acts where: `{PLACE: {method: NAME, argument: value}}`; see todm.dropout.install."""
    training: Training = field(default_factory=Training)
    search: Search = field(default_factory=Search)
    export: Export = field(default_factory=Export)


def build(kind: Any, values: dict[str, Any], where: str) -> Any:
    """Make a dataclass of type `kind` from plain values, checking every key and type.

    Args:
        where: What the values came from, for the error message.

    Raises:
        TodmError: an unknown key (with the nearest known one), a wrong type, or values that contradict each other.
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and not hasattr(kind, "__pydantic_config__"):
        frozen = kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        kind = dataclass(kind, config=STRICT, frozen=frozen)  # an ordinary one would swallow unknown keys
    try:
        return TypeAdapter(kind).validate_python(values, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "unexpected_keyword_argument":
            known = _keys_at(kind, first["loc"][:-1])
            near = difflib.get_close_matches(str(first["loc"][-1]), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise TodmError(f"{where}: unknown key {path!r}; {hint}") from None
        message = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r}"
        raise TodmError(f"{where}: {path + ': ' if path else ''}{message}{got}") from None


def _keys_at(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        kind = typing.get_type_hints(kind)[str(part)]
    return [item.name for item in dataclasses.fields(kind)]


def load_recipe(name: str, overrides: dict[str, Any] | None = None, setting: str = "") -> tuple[Recipe, Path]:
    """Read a recipe by name (shipped with the package) or path (of the file or its folder).

    Args:
        overrides: Nested values that take precedence, e.g. `{"training": {"updates": 100}}`.
        setting: `full` or `quick`: put the values of recipe-SETTING.yaml, which stands beside it, over it.

    Returns:
        The recipe and the folder it was read from.

    Raises:
        TodmError: not found, not YAML, or not a valid recipe.
    """
    import todm.recipes

    path = Path(name, "recipe.yaml") if Path(name).is_dir() else Path(name)
    path = path if path.is_file() else Path(todm.recipes.__path__[0], name, "recipe.yaml")
    if not path.is_file():
        raise TodmError(f"no recipe {name!r}: give a shipped name ({', '.join(shipped())}) or the path of a YAML file")
    values = read_yaml(path)
    if setting:
        values = merged(values, read_yaml(path.with_name(f"recipe-{setting}.yaml")))
    return build(Recipe, merged(values, overrides or {}), str(path)), path.parent


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a recipe file.

    Raises:
        TodmError: it cannot be read, is not YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TodmError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise TodmError(f"cannot read {path}: {error.strerror}") from None
    if not isinstance(values, dict):
        raise TodmError(f"{path} is not a recipe: expected keys such as name and task")
    return values


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    import todm.recipes

    return sorted(path.parent.name for path in Path(todm.recipes.__path__[0]).glob("*/recipe.yaml"))


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `over` put in; a block of another `method` or `schedule` takes the old one's place."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and not _other_kind(old, value):
            value = merged(old, value)
        result[key] = value
    return result


def _other_kind(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return any(kind in new and new[kind] != old.get(kind) for kind in ("method", "schedule"))


def as_yaml(recipe: Recipe) -> str:
    """The recipe with every default written out."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False)  # type: ignore[call-overload]


def task_class(recipe: Recipe, folder: Path) -> Any:
    """Import the class that a recipe names as its task.

    Raises:
        TodmError: no such module, file or class.
    """
    module_name, _, class_name = recipe.task.partition(":")
    try:
        if module_name.endswith(".py"):
            module = _import_file((folder / module_name).resolve())
        elif not module_name or module_name.startswith("."):
            raise ImportError("write package.module:Class or file.py:Class")
        else:
            module = importlib.import_module(module_name)
        kind = getattr(module, class_name)
        _ = kind.Data, kind.Model
        return kind
    except (ImportError, AttributeError, OSError) as error:
        raise TodmError(f"task {recipe.task!r} of recipe {recipe.name!r} cannot be loaded: {error}") from error


def _import_file(path: Path) -> types.ModuleType:
    # Registered under a name of its own, so that worker processes can unpickle what it defines.
    name = f"todm_task_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
