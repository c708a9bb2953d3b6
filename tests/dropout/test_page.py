"""The page on dropouts: every example runs, every method and schedule is on it, the picture is up to date."""

import re
import runpy
from pathlib import Path

import pytest

from todm import dropout
from todm.dropout.duality import PENALTIES
from todm.dropout.schedule import SCHEDULES

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "dropout.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_the_examples_run(index, capsys, monkeypatch):
    monkeypatch.setattr(dropout.registry, "_METHODS", dict(dropout.registry._METHODS))
    exec(compile(EXAMPLES[index], f"dropout.md, example {index}", "exec"), {"__name__": "example"})
    out = capsys.readouterr().out
    assert out.strip()
    if "adaptive_prox" in EXAMPLES[index]:
        assert "not zero: (2, 20)" in out
    if "front" in EXAMPLES[index] or "annealed_mixture" in EXAMPLES[index]:
        assert out.splitlines()[-1].count("1.0") == 3  # all three layers are annealed at the end


def test_everything_is_on_the_page():
    for name in (*dropout.names(), *SCHEDULES, *PENALTIES):
        assert f"`{name}`" in PAGE, name
    assert len(EXAMPLES) >= 9


def test_the_picture_shows_every_schedule_as_it_is():
    script = runpy.run_path(str(DOCS / "schedules.py"))
    assert set(script["PANELS"]) == set(SCHEDULES)
    assert (DOCS / "schedules.svg").read_text(encoding="utf-8") == script["picture"]()
