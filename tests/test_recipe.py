"""A recipe is checked to the last key, and every way to get it wrong is one line that says what to type."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

import todm.recipes
from todm.errors import TodmError
from todm.recipe import Recipe, Training, as_yaml, build, load_recipe, merged, shipped, task_class

BASE = "name: r\ntask: module:Class\n"


def write(folder: Path, text: str, name: str = "recipe.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("traning: {}", "unknown key 'traning'; did you mean 'training'?"),
        ("training: {update: 3}", "unknown key 'training.update'; did you mean 'updates'?"),
        ("search: {zzz: 3}", "unknown key 'search.zzz'; known keys: trials, measured, precision, storage, family"),
        ("training: {updates: lots}", "training.updates: Input should be a valid integer.*, got 'lots'"),
        ("training: {updates: 1.5}", "training.updates: Input should be a valid integer.*, got 1.5"),
        ("training: 5", "training: Input should be a dictionary.*, got 5"),
        ("data: [1]", r"data: Input should be a valid dictionary, got \[1\]"),
        ("seed: x", "seed: Input should be a valid integer.*, got 'x'"),
        ("3: 4", "3: Keys should be strings"),
        ("training: {updates: 0}", "training.updates: Input should be greater than or equal to 1, got 0"),
        ("training: {growth: 1.5}", "training.growth: Input should be less than or equal to 1, got 1.5"),
        ("training: {lr: 0}", "training.lr: Input should be greater than 0, got 0"),
        ("training: {clipping_scale: 0}", "training.clipping_scale: Input should be greater than 0, got 0"),
        ("training: {random_nets: -1}", "training.random_nets: Input should be greater than or equal to 0, got -1"),
        ("seed: -1", "seed: Input should be greater than or equal to 0, got -1"),
        ("training: {divergence: klein}", "training.divergence: Input should be 'none', 'kl', 'adaptive' or 'squared'"),
        (
            "export: {precisions: [float, int3]}",
            "export.precisions.1: Input should be 'float', 'int8' or 'int4', got 'int3'",
        ),
        ("training: {nets: alone}", "training: arch and nets: alone belong together"),
        ("training: {weight_decay: 0.1}", "training: weight_decay is for adamw and sgd"),
        (
            "training: {growth: 0.8, divergence: kl, distillation_start: 0.7}",
            "training: distillation_start is before the end of growth",
        ),
        ("training: {teacher: average}", "training: teacher does nothing without a divergence"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(tmp_path, text, message):
    path = write(tmp_path, BASE + text)
    with pytest.raises(TodmError, match=f"^{path}: {message}") as error:
        load_recipe(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "recipe.yaml is not valid YAML: .*line 1"),
        ("- a\n- b", "recipe.yaml is not a recipe: expected keys such as name and task"),
        ("", "recipe.yaml is not a recipe"),
        ("name: r", "recipe.yaml: task: Field required"),
        ("a: &a [*a]", "recipe.yaml"),
    ],
)
def test_what_is_not_a_recipe_at_all(tmp_path, text, message):
    with pytest.raises(TodmError, match=message) as error:
        load_recipe(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_nowhere(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TodmError, match=r"binary\.yaml is not valid YAML"):
        load_recipe(str(tmp_path / "binary.yaml"))
    for name in ("digts", "no/where.yaml", str(tmp_path)):
        with pytest.raises(TodmError, match=rf"no recipe '{name}': give a shipped name \(.*digits.*\) or the path"):
            load_recipe(name)
    with pytest.raises(TodmError, match=r"cannot read .*recipe-full.yaml: No such file"):
        load_recipe(write(tmp_path, BASE), setting="full")


def test_by_name_folder_or_file(tmp_path, monkeypatch):
    by_name, home = load_recipe("digits")
    assert home == Path(todm.recipes.__path__[0]) / "digits"
    assert load_recipe(str(home)) == load_recipe(str(home / "recipe.yaml")) == (by_name, home)
    assert "digits" in shipped()
    path = write(tmp_path, BASE)
    monkeypatch.chdir(tmp_path)
    assert load_recipe(".")[0] == load_recipe("recipe.yaml")[0] == load_recipe(path)[0]
    (tmp_path / "digits").mkdir()  # a folder of that name with no recipe in it hides nothing
    assert load_recipe("digits")[0] == by_name


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("full", [False, True])
def test_shipped_recipes_are_valid(name, full):
    home = Path(todm.recipes.__path__[0]) / name
    if full and not (home / "recipe-full.yaml").exists():
        pytest.skip("no long setting")
    recipe, _ = load_recipe(name, setting="full" if full else "")
    kind = task_class(recipe, home)
    build(kind.Data, recipe.data, "data")
    build(kind.Model, recipe.model, "model")


def test_what_counts_is_flag_then_full_then_recipe_then_default(tmp_path):
    path = write(tmp_path, BASE + "training: {updates: 10, growth: 0.1, lr: 0.5}\ndata: {a: {b: 1, c: 2}}\n")
    write(tmp_path, "training: {updates: 20, growth: 0.2}\ndata: {a: {c: 3}}\n", "recipe-full.yaml")
    flags = {"training": {"updates": 30}, "data": {"d": 4}}
    quick, full = load_recipe(path, flags)[0], load_recipe(path, flags, setting="full")[0]
    assert (quick.training.updates, quick.training.growth, quick.training.lr) == (30, 0.1, 0.5)
    assert (full.training.updates, full.training.growth, full.training.lr) == (30, 0.2, 0.5)
    assert quick.data == {"a": {"b": 1, "c": 2}, "d": 4}
    assert full.data == {"a": {"b": 1, "c": 3}, "d": 4}
    assert full.training.average == Training().average
    assert load_recipe(path, None, setting="full")[0].training.updates == 20


def test_another_method_does_not_inherit_the_arguments_of_the_old_one():
    base = {"site": {"method": "standard", "rate": {"schedule": "cosine", "start": 0.2}}}
    other = {"site": {"method": "standout", "beta": 2.0}}
    assert merged(base, other) == other
    linear = {"schedule": "linear", "start": 0.1}
    assert merged(base, {"site": {"rate": linear}}) == {"site": {"method": "standard", "rate": linear}}
    assert merged(base, {"site": {"rate": {"start": 0.3}}})["site"]["rate"] == {"schedule": "cosine", "start": 0.3}


def test_merged_leaves_its_arguments_alone():
    base, over = {"a": {"b": 1}, "c": {"d": 2}, "e": 5}, {"a": {"x": 3}, "c": 4, "e": {"f": 6}}
    assert merged(base, over) == {"a": {"b": 1, "x": 3}, "c": 4, "e": {"f": 6}}
    assert (base["a"], over["a"]) == ({"b": 1}, {"x": 3})


def test_written_out_and_read_again_it_is_the_same(tmp_path):
    recipe, _ = load_recipe(write(tmp_path, BASE + "training: {clipping_scale: null, precision: float32}\n"))
    text = as_yaml(recipe)
    assert build(Recipe, yaml.safe_load(text), "again") == recipe
    written = yaml.safe_load(text)
    assert written["training"]["clipping_scale"] is None
    assert {f.name for f in dataclasses.fields(Recipe)} == set(written)  # every default in plain sight
    assert {f.name for f in dataclasses.fields(Training)} == set(written["training"])


def test_every_key_is_documented():
    schema = TypeAdapter(Recipe).json_schema()
    for kind in (schema, *schema["$defs"].values()):
        assert kind["description"]
        for name, key in kind["properties"].items():
            assert key.keys() & {"description", "$ref"}, name


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass
class Options:
    """An ordinary dataclass, as a user's own task may have it."""

    inner: Inner = field(default_factory=Inner)
    rate: float = 0.5


def test_an_ordinary_dataclass_is_checked_as_strictly():
    made = build(Options, {"inner": {"size": 2}, "rate": 1}, "w")
    assert isinstance(made, Options)
    assert isinstance(made.inner, Inner)
    assert (made.inner.size, made.rate) == (2, 1.0)
    for values, message in [
        ({"rat": 1}, "w: unknown key 'rat'; did you mean 'rate'?"),
        ({"inner": {"siz": 1}}, "w: unknown key 'inner.siz'; did you mean 'size'?"),
        ({"inner": {"size": "big"}}, "w: inner.size: Input should be a valid integer"),
    ]:
        with pytest.raises(TodmError, match=message):
            build(Options, values, "w")


def test_the_task_is_a_class_of_a_module_or_of_a_file_beside_the_recipe(tmp_path):
    (tmp_path / "mine.py").write_text("class Mine:\n    Data = Model = int\n")
    recipe = load_recipe(write(tmp_path, "name: r\ntask: mine.py:Mine\n"))[0]
    assert task_class(recipe, tmp_path).__name__ == "Mine"
    digits = load_recipe("digits")[0]
    assert task_class(digits, tmp_path).__name__ == "DigitsTask"


@pytest.mark.parametrize(
    "task",
    [
        "nowhere:Task",
        "todm.task:Tusk",
        "todm.task",
        ":Task",
        "..up:Task",
        "absent.py:Task",
        "mine.py:Tusk",
        "todm.task:Any",
    ],
)
def test_a_task_that_is_nowhere(tmp_path, task):
    (tmp_path / "mine.py").write_text("")
    recipe = load_recipe(write(tmp_path, f"name: r\ntask: {task!r}\n"))[0]
    with pytest.raises(TodmError, match=f"task '{task}' of recipe 'r' cannot be loaded: ") as error:
        task_class(recipe, tmp_path)
    assert "\n" not in str(error.value)
