"""What an update of each row of a comparison costs."""

import json
from pathlib import Path

from bench import rows

RECIPE = f"""
name: toy
task: {Path(__file__).parent / "toy_task.py"}:ToyTask
training: {{updates: 40, growth: 0}}
"""
COMPARISON = """
baseline: family
rows:
  alone: {training: {nets: alone, arch: smallest}}
  family: {}
"""


def test_a_family_costs_more_than_one_net(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "compare.yaml").write_text(COMPARISON)
    assert rows.main([str(tmp_path), str(tmp_path / "cost.json")]) == 0
    found = json.loads((tmp_path / "cost.json").read_text())["milliseconds"]
    assert list(found) == ["family", "alone"]
    assert found["family"] > 1.5 * found["alone"] > 0


def test_rows_with_other_data_are_refused(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "compare.yaml").write_text(COMPARISON + "  uneven: {data: {uneven: true}}\n")
    assert rows.main([str(tmp_path)]) == rows.main([]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "row 'uneven' changes the data" in said[0] and "type: python -m bench.rows" in said[1]
