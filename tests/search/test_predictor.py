import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_net import Net, counted

from todm.errors import TodmError
from todm.search.predictor import Predictor
from todm.search.spread import arch_key, ladder, spread
from todm.space import Arch, SearchSpace


def _measured(arch: Arch, noise: np.random.Generator | None = None) -> dict[str, float]:
    """A device whose sizes are exact and whose times scatter by 5 %; rtf is small, memory nearly constant."""
    scatter = np.exp(noise.normal(0, 0.05, 2)) if noise else np.ones(2)
    costs = counted(arch)
    latency = float((0.05 + 4e-5 * costs["macs"] + 0.03 * arch["depth"]) * scatter[0])
    return {
        "size_bytes": 4 * costs["params"] + 900 * arch["depth"] + 3000,
        "latency_p90_ms": latency,
        "rtf": latency / 320,
        "peak_memory_bytes": 4e7 * (1 + 0.1 * float(scatter[1] - 1)) + 4 * costs["params"],
        "threads": 1.0,
    }


def _predictor(space: SearchSpace, count: int = 12, seed: int = 0) -> Predictor:
    noise = np.random.default_rng(seed)
    return Predictor(space, counted, [(arch, _measured(arch, noise)) for arch in spread(space, count, seed)])


def test_predicts_networks_it_has_not_seen(space: SearchSpace) -> None:
    rng = random.Random(1)
    fresh = [space.canonical(space.sample(rng)) for _ in range(100)]
    predictor = _predictor(space)
    for name, tolerance in (
        ("size_bytes", 0.01),
        ("latency_p90_ms", 0.06),
        ("rtf", 0.06),
        ("peak_memory_bytes", 0.01),
    ):
        pairs = np.array([(predictor.predict(arch)[name][0], _measured(arch)[name]) for arch in fresh])
        error = np.abs(pairs[:, 0] / pairs[:, 1] - 1).mean()
        assert error < tolerance, name
    assert predictor.predict(fresh[0])["threads"] == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-9))


def test_held_out_error_is_that_of_unseen_measurements(space: SearchSpace) -> None:
    shown, true = [], []
    for seed in range(5):
        predictor = _predictor(space, seed=seed)
        noise = np.random.default_rng(100 + seed)
        rng = random.Random(seed)
        for arch in (space.canonical(space.sample(rng)) for _ in range(40)):
            predicted, error = predictor.predict(arch)["latency_p90_ms"]
            assert error == pytest.approx(predicted * predictor.held_out["latency_p90_ms"]["error"])
            value = _measured(arch, noise)["latency_p90_ms"]
            true.append(abs(predicted / value - 1))
        shown.append(predictor.held_out["latency_p90_ms"]["error"])
        assert predictor.held_out["latency_p90_ms"]["rank_correlation"] > 0.9
        assert predictor.held_out["size_bytes"]["error"] < 0.03
        assert predictor.held_out["threads"] == {"error": pytest.approx(0, abs=1e-9), "rank_correlation": 0.0}
    assert 0.6 < np.mean(shown) / np.mean(true) < 2.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 10))
def test_larger_is_never_predicted_cheaper_even_from_pure_noise(seed: int, count: int) -> None:
    space = SearchSpace.of(Net())
    noise = np.random.default_rng(seed)
    rows = [(arch, {"load_ms": float(noise.uniform(1, 100))}) for arch in spread(space, count, seed)]
    predictor = Predictor(space, counted, rows)
    rng = random.Random(seed)
    one, other = space.sample(rng), space.sample(rng)
    small = {name: min(one[name], other[name]) for name in one}
    large = {name: max(one[name], other[name]) for name in one}
    below, above = (predictor.predict(arch)["load_ms"][0] for arch in (small, large))
    assert 0 <= below <= above + 1e-9


def test_rows_that_do_not_fit(space: SearchSpace) -> None:
    small, large = space.smallest(), space.largest()
    middle = ladder(space, 3)[2]
    same = {**small, "hidden3": 32}
    with pytest.raises(TodmError, match="only 2 different subnets"):
        Predictor(space, counted, [(a, _measured(a)) for a in (small, large, same)])
    rows = [(small, {"load_ms": 99.0}), (same, {"load_ms": 1.0, "rtf": 1.0}), (large, {"load_ms": 3.0})]
    predictor = Predictor(space, counted, [*rows, (middle, {"load_ms": 2.0})])
    assert set(predictor.held_out) == {"load_ms"}
    assert predictor.predict(small)["load_ms"][0] == pytest.approx(1.0, rel=0.2)


def test_spread_covers_the_space(space: SearchSpace) -> None:
    chosen = spread(space, 12, seed=3)
    assert chosen == spread(space, 12, seed=3) != spread(space, 12, seed=4)
    assert chosen[:2] == [space.smallest(), space.largest()]
    assert len({arch_key(arch) for arch in chosen}) == 12
    assert {arch["depth"] for arch in chosen} == {1, 2, 3, 4}

    def nearest(archs: list[Arch]) -> float:
        points = np.array([space.encode(arch) for arch in archs])
        gaps = np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(len(points))
        return float(gaps.min())

    rng = random.Random(0)
    drawn = [nearest([space.canonical(space.sample(rng)) for _ in range(12)]) for _ in range(50)]
    assert nearest(chosen) > max(drawn)


def test_ladder_and_spread_of_a_space_smaller_than_asked() -> None:
    space = SearchSpace({"width": (8, 16, 32)}, {"width": [()]})
    assert ladder(space, 6) == [{"width": 8}, {"width": 32}, {"width": 16}]
    assert len(spread(space, 10)) == 3
    assert spread(SearchSpace({"width": (8,)}, {"width": [()]}), 5) == [{"width": 8}]
