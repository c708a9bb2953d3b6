"""Advice is read off the run's files: measured where there is a measurement, else predicted with its error."""

import json
from pathlib import Path
from typing import Any

import pytest

from todm.errors import TodmError
from todm.files import write_json
from todm.rows import put_rows
from todm.search.advise import advise, as_text, described
from todm.search.budget import Budget
from todm.search.evidence import options_of

ERRORS = {8: 6.0, 16: 4.0, 24: 3.0, 32: 2.0}
"""Width -> dev error. Everything costs in proportion to the width."""


def costs(width: int) -> dict[str, float]:
    return {"params": 100.0 * width, "macs": 1000.0 * width, "size_bytes": 400.0 * width, "rtf": 1e-3 * width}


def measure(run: Path, width: int, device: str, precision: str = "float", error: float | None = None) -> None:
    folder = run / "subnets" / f"w{width}"
    write_json(folder / "arch.json", {"width": width})
    write_json(folder / "metrics.json", {"dev": {"wer": ERRORS[width]}})
    row: dict[str, Any] = costs(width) | {"subnet": f"w{width}", "device": device, "runtime": "onnx"}
    row |= {"precision": precision, "wer": ERRORS[width] + 0.5 if error is None else error}
    if precision == "int8":
        row["size_bytes"] /= 4
    put_rows(run / "bench.csv", [row], ["subnet", "device", "precision"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    names = ["wer", "params", "macs", "size_bytes", "arch"]
    rows = [{"wer": error, **costs(width), "arch": json.dumps({"width": width})} for width, error in ERRORS.items()]
    put_rows(tmp_path / "search" / "front.csv", [{name: row[name] for name in names} for row in rows], ["arch"])
    samples = [[{"width": width}, costs(width)] for width in (8, 16, 32)]
    write_json(tmp_path / "search" / "measurements-pi.json", {"study": "s", "rows": samples})
    return tmp_path


def advice(run: Path, budget: str, device: str = "pi", error: str = "wer") -> dict[str, Any]:
    options, metric = options_of(run, device, "onnx", "float")
    return described(advise(options, Budget.parse(budget, error), metric), metric)


def test_a_searched_subnet_is_predicted(run: Path) -> None:
    best = advice(run, "size<=10KB")
    assert (best["arch"], best["basis"], best["subnet"]) == ({"width": 24}, "predicted", None)
    assert best["costs"]["params"] == {"value": 2400, "error": 0}
    assert best["costs"]["size_bytes"]["value"] == pytest.approx(9600, rel=0.02)
    assert best["costs"]["rtf"]["error"] >= 0
    assert best["wer"] == {"value": 3.0, "error": 0.0, "split": "dev"}


def test_a_measured_one_is_named_with_its_own_figures(run: Path) -> None:
    measure(run, 24, "pi")
    best = advice(run, "size<=10KB")
    assert (best["subnet"], best["basis"]) == ("w24", "measured")
    assert best["costs"]["size_bytes"] == {"value": 9600, "error": 0}
    assert best["wer"] == {"value": 3.5, "error": 0, "split": "test"}
    assert "w24 as onnx float, measured on pi" in as_text({**best, "device": "pi"}, "wer")


def test_what_measured_scores_changed_by_is_the_error_of_predicted_ones(run: Path) -> None:
    measure(run, 8, "pi", error=6.25)
    measure(run, 16, "pi", error=3.25)
    best = advice(run, "size<=10KB")
    assert best["wer"] == {"value": 3.0, "error": 0.5, "split": "dev"}
    assert "3.00 ± 0.50 on the dev set" in as_text({**best, "device": "pi"}, "wer")


def test_another_form_of_a_larger_net_may_fit_where_its_float_does_not(run: Path) -> None:
    measure(run, 32, "pi")
    measure(run, 32, "pi", "int8", error=2.6)
    best = advice(run, "size<=4KB")
    assert (best["subnet"], best["precision"], best["wer"]["value"]) == ("w32", "int8", 2.6)


def test_a_limit_on_the_error_in_int8_is_kept_by_an_int8_file(run: Path) -> None:
    with pytest.raises(TodmError, match="budget names wer_int8, but no int8 file was measured"):
        advice(run, "wer_int8<=4", error="wer_int8")
    measure(run, 16, "pi", "int8", error=4.5)
    measure(run, 32, "pi")
    measure(run, 32, "pi", "int8", error=2.6)
    best = advice(run, "wer_int8<=2.6", error="wer_int8")
    assert (best["subnet"], best["precision"], best["wer"]["value"]) == ("w32", "int8", 2.6)
    with pytest.raises(TodmError, match="wer_int8<=2.5 cannot be met"):
        advice(run, "wer_int8<=2.5", error="wer_int8")


def test_an_error_bar_that_reaches_over_the_limit_does_not_fit(run: Path) -> None:
    path = run / "search" / "measurements-pi.json"
    rows = json.loads(path.read_text())["rows"]
    rows[1][1]["rtf"] *= 1.5  # held out, it is badly predicted
    write_json(path, {"study": "s", "rows": rows})
    options, _ = options_of(run, "pi", "onnx", "float")
    value, error = next(option.costs["rtf"] for option in options if option.arch == {"width": 24})
    assert error > 0.1 * value
    assert advice(run, f"rtf<={value + 1.01 * error}")["arch"] == {"width": 24}
    assert advice(run, f"rtf<={value + 0.5 * error}")["arch"] != {"width": 24}


def test_measurements_on_another_device_do_not_count(run: Path) -> None:
    measure(run, 24, "phone")
    assert advice(run, "size<=10KB")["basis"] == "predicted"
    with pytest.raises(TodmError, match="nothing was measured on phone in .*; type: todm search .* --device phone"):
        advice(run, "size<=10KB", "phone")


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("size<=1KB", r"budget size<=1KB cannot be met: the smallest subnet needs 3\.2"),
        ("wer<=2.5, size<=4KB", r'no subnet keeps all of "wer<=2.5, size<=4KB"; the nearest, .*, needs'),
        ("latency_p90<=5ms", "budget names latency_p90, but measured were only"),
    ],
)
def test_a_budget_that_nothing_keeps(run: Path, budget: str, message: str) -> None:
    with pytest.raises(TodmError, match=message) as error:
        advice(run, budget)
    assert "\n" not in str(error.value)


def test_a_run_without_a_search(tmp_path: Path) -> None:
    with pytest.raises(TodmError, match="has no search results; type: todm search"):
        options_of(tmp_path, "pi", "onnx", "float")
