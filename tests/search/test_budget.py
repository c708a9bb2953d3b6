import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todm.errors import TodmError
from todm.search.budget import METRICS, Budget, check_feasible, format_value

FLOOR = {"size_bytes": 211734.0, "params": 53412.0, "latency_p90_ms": 1.234, "rtf": 0.00123}


@pytest.mark.parametrize(
    ("text", "name", "limit"),
    [
        ("size<=1MB", "size_bytes", 1e6),
        ("size < 1.5 KiB", "size_bytes", 1536),
        ("size<=2mib", "size_bytes", 2 * 2**20),
        ("size_bytes<=100", "size_bytes", 100),
        ("params<=1M", "params", 1e6),
        ("macs <= 2.5G", "macs", 2.5e9),
        ("params<=10k", "params", 1e4),
        ("rtf<=5e-2", "rtf", 0.05),
        ("latency_p90<=20ms", "latency_p90_ms", 20),
        ("latency_p99<=500us", "latency_p99_ms", 0.5),
        ("latency_p50_ms<=3", "latency_p50_ms", 3),
        ("load<=1.5s", "load_ms", 1500),
        ("peak_memory<=.5GB", "peak_memory_bytes", 5e8),
        ("peak_rss<=40MB", "peak_rss_bytes", 4e7),
        ("wer<=3%", "wer", 3),
    ],
)
def test_names_and_units(text: str, name: str, limit: float) -> None:
    assert Budget.parse(text).limits == {name: limit}


def test_the_error_has_the_name_that_the_task_gives_it() -> None:
    budget = Budget.parse("rmse<=3, size<=1MB", "rmse")
    assert budget.limits == {"rmse": 3, "size_bytes": 1e6}
    assert budget.violations({"rmse": 4.5, "size_bytes": 1e6}) == {"rmse": 0.5}
    assert budget.without("rmse").limits == {"size_bytes": 1e6}
    with pytest.raises(TodmError, match="unknown 'wer'; known: size, .*, peak_memory, rmse"):
        Budget.parse("wer<=3", "rmse")


def test_combination_keeps_order_and_units() -> None:
    budget = Budget.parse(" size<=1MB,rtf < 0.05 ,\n latency_p90<=20000us ")
    assert list(budget.limits.items()) == [("size_bytes", 1e6), ("rtf", 0.05), ("latency_p90_ms", 20.0)]
    assert str(budget) == "size<=1MB, rtf<=0.05, latency_p90<=20000us"
    assert Budget.parse("  ") == Budget({})


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    names = draw(st.lists(st.sampled_from(sorted(METRICS)), unique=True))
    numbers = st.floats(min_value=1e-300, max_value=1e300, exclude_min=True)
    units = {name: draw(st.sampled_from(sorted(METRICS[name]))) for name in names}
    return Budget({name: draw(numbers) for name in names}, units)


@given(budgets())
def test_written_form_reads_back_exactly(budget: Budget) -> None:
    assert Budget.parse(str(budget)) == budget
    without_units = Budget(budget.limits)
    assert Budget.parse(str(without_units)).limits == budget.limits


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("siz<=1MB", "did you mean size? known: size, params"),
        ("latency<=3ms", "latency_p50, latency_p90, latency_p99"),
        ("size 1MB", "needs '<='"),
        ("size>=1MB", "needs '<='"),
        ("size==1MB", "needs '<='"),
        ("size", "needs '<='"),
        ("<=1MB", "is not NAME<=NUMBER"),
        ("size<=1MB,", "is not NAME<=NUMBER"),
        ("size<=", "is not a number"),
        ("size<=big", "is not a number"),
        ("size<=1 000KB", "is not a number"),
        ("size<=1XB", "units of size: B, KB, MB, GB, KiB, MiB, GiB"),
        ("latency_p90<=20MB", "units of latency_p90: ms, us, s"),
        ("rtf<=5%", "units of rtf: none"),
        ("size<=1MB, size_bytes<=2MB", "names size twice"),
        ("size<=0MB", "positive, finite"),
        ("rtf<=-0.1", "positive, finite"),
        ("rtf<=nan", "positive, finite"),
        ("size<=infMB", "positive, finite"),
        ("params<=1e999", "positive, finite"),
        ("params<=1e308G", "positive, finite"),
        ("params<=1e-999", "positive, finite"),
        ("params<=1e999999999999", "positive, finite"),
    ],
)
def test_errors_are_one_line_and_say_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(TodmError) as error:
        Budget.parse(text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        limits = Budget.parse(text).limits
    except TodmError:
        return
    assert all(math.isfinite(limit) and limit > 0 for limit in limits.values())


def test_violations_are_relative() -> None:
    budget = Budget.parse("size<=100KB, rtf<=0.05, params<=53412")
    excess = budget.violations({**FLOOR, "rtf": 0.06})
    assert excess == pytest.approx({"size_bytes": 1.11734, "rtf": 0.2})
    assert Budget({}).violations({}) == {}
    with pytest.raises(TodmError, match="names wer, but measured were only size, params, rtf, latency_p90"):
        Budget.parse("wer<=3%, size<=1MB").violations(FLOOR)


def test_infeasible_budget_names_the_nearest_feasible() -> None:
    with pytest.raises(TodmError) as error:
        check_feasible(Budget.parse("size<=1KB"), FLOOR)
    assert str(error.value) == (
        "budget size<=1KB cannot be met: the smallest subnet needs 212KB; " + 'type --budget "size<=212KB"'
    )
    with pytest.raises(TodmError, match=r'size 0.212MB, rtf 0.0013; type --budget "size<=0.212MB, p') as error:
        check_feasible(Budget.parse("size<=0.1MB, params<=60K, rtf<=0.001"), FLOOR)
    check_feasible(Budget.parse(str(error.value).split('"')[1]), FLOOR)
    check_feasible(Budget.parse("size<=212KB, latency_p90<=2ms"), FLOOR)
    with pytest.raises(TodmError, match="names load"):
        check_feasible(Budget.parse("load<=1s"), FLOOR)


@given(st.sampled_from(sorted(METRICS)), st.floats(1e-6, 1e15), st.data())
def test_suggested_value_is_feasible_and_near(name: str, needed: float, data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(sorted(METRICS[name])))
    budget = Budget({name: needed / 2}, {name: unit})
    with pytest.raises(TodmError) as error:
        check_feasible(budget, {name: needed})
    suggested = Budget.parse(str(error.value).split('"')[1])
    assert needed <= suggested.limits[name] <= needed * 1.11
    assert suggested.units == budget.units


def test_value_in_the_largest_fitting_unit() -> None:
    assert format_value("size_bytes", 212000) == "212KB"
    assert format_value("size_bytes", 999) == "999B"
    assert format_value("latency_p90_ms", 0.5) == "500us"
    assert format_value("latency_p90_ms", 0.0005) == "0.5us"
    assert format_value("wer", 3.25) == "3.25"


def test_import_is_light() -> None:
    code = (
        "import sys, todm.search, todm.search.budget as b; todm.search.Budget.parse('size<=1MB');"
        "print([m for m in ('torch', 'optuna', 'numpy', 'sklearn') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
