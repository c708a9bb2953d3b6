"""Every row of every comparison is a valid recipe; those on text have their dropout go into their model."""

import os
from pathlib import Path

import pytest

from todm import dropout
from todm.compare import load_comparison
from todm.recipe import Recipe, build, load_recipe, merged, shipped, task_class

COMPARED = [name for name in shipped() if (load_recipe(name)[1] / "compare.yaml").exists()]
HOMES = {"dynamic_chargpt": "tinyshakespeare", "simcse_sts": "stsb"}


def test_there_are_comparisons():
    assert {"claim", *HOMES} <= set(COMPARED)


@pytest.mark.parametrize("name", COMPARED)
def test_every_row_is_a_valid_recipe(name):
    base, home = load_recipe(name)
    plan, kind = load_comparison(home), task_class(base, home)
    for row, changes in plan.rows.items():
        for quick in ({}, plan.quick):
            recipe: Recipe = load_recipe(name, merged(merged(plan.settings, changes), quick))[0]
            build(kind.Data, recipe.data, row)
            build(kind.Model, recipe.model, row)


@pytest.mark.parametrize("name", HOMES)
def test_every_row_can_be_built(name, tmp_path):
    if not Path(os.environ.get("TODM_DATA", "nowhere"), HOMES[name]).is_dir():
        pytest.skip(f"needs $TODM_DATA/{HOMES[name]}")
    base, home = load_recipe(name)
    plan = load_comparison(home)
    kind, rates = task_class(base, home), {}
    for row, changes in plan.rows.items():
        overrides = merged(merged(merged(plan.settings, changes), plan.quick), {"seed": 1})
        recipe: Recipe = load_recipe(name, overrides)[0]
        data, sizes = build(kind.Data, recipe.data, row), build(kind.Model, recipe.model, row)
        model = kind(data, sizes, recipe.seed, tmp_path).build()
        dropout.install(model, recipe.dropout)
        values = dropout.Rates(model, total=recipe.training.updates)
        values.step(recipe.training.updates)
        rates[row] = values.values()
    assert {site for values in rates.values() for site in values} == {
        "embedding", "attention", "feed_forward", "residual",
    }  # fmt: skip
    none = next(values for row, values in rates.items() if row.endswith("none"))
    assert set(none.values()) == {0.0}
