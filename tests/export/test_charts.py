"""Charts: the axis against its definition, the front against brute force."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todm.export.charts import axis, thin, unbeaten

values = st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=20)
points = st.lists(st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float)), max_size=12)


@given(values, st.booleans(), st.booleans())
def test_ticks_enclose_the_values(numbers: list[float], log: bool, down: bool) -> None:
    line = axis(numbers, log, down)
    assert line.ticks == sorted(set(line.ticks))
    assert len(line.ticks) >= 2
    places = [line.at(number) for number in numbers]
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in places)
    assert [line.at(line.ticks[0]), line.at(line.ticks[-1])] == pytest.approx([100, 0] if down else [0, 100])


def test_round_ticks() -> None:
    assert axis([0.3, 3.9], log=False).ticks == [0, 1, 2, 3, 4]
    assert axis([0.0], log=False).ticks == [0, 0.25]
    assert axis([-3.0, 1.0], log=False).ticks == [-3, -2, -1, 0, 1]
    assert axis([120, 1900], log=True).ticks == [100, 200, 500, 1000, 2000]
    assert axis([1, 100], log=True).at(10) == pytest.approx(50)


@given(points)
def test_the_front_is_what_nothing_beats(found: list[tuple[float, float]]) -> None:
    def beaten(point: tuple[float, float]) -> bool:
        return any(o != point and o[0] <= point[0] and o[1] <= point[1] for o in found)

    assert unbeaten(found) == sorted({point for point in found if not beaten(point)})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=500))
def test_a_thinned_curve_keeps_order_and_range(curve: list[float]) -> None:
    line = thin(list(enumerate(curve)), most=40)
    assert len(line) <= 40
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert min(curve) - 1e-9 <= min(y for _, y in line) <= max(y for _, y in line) <= max(curve) + 1e-9
    assert thin([(1.0, 2.0), (2.0, 4.0)], most=1) == [(1.5, 3.0)]
