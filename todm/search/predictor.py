"""From measurements of a few exported subnets to those of any, with the error found on held-out ones."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from todm.errors import TodmError
from todm.search.spread import arch_key
from todm.space import Arch, SearchSpace


class Predictor:
    """Predicts each metric of a subnet from its parameters, MACs and choices.

    Sizes, times and memory are sums over layers, so a linear model suffices. Its weights are kept
    non-negative: a network larger in every respect is never predicted to be cheaper, whatever the noise.

    `held_out` tells for each metric how well measurements left out one at a time are predicted: mean `error`
    relative to the measured value, and Spearman's `rank_correlation` (0 where either side is constant).

    Args:
        costs: Exact `params` and `macs` of an architecture.
        measurements: Architectures with their measured metrics; of the same network the last one counts.
            Metrics that a row lacks are left out.

    Raises:
        TodmError: fewer than three different networks were measured.
    """

    def __init__(
        self, space: SearchSpace, costs: Callable[[Arch], dict[str, float]],
        measurements: Sequence[tuple[Arch, dict[str, float]]],
    ) -> None:  # fmt: skip
        rows = {arch_key(space.canonical(arch)): (arch, metrics) for arch, metrics in measurements}
        if len(rows) < 3:
            raise TodmError(f"only {len(rows)} different subnets were measured; a prediction needs 3 or more")
        self._space, self._costs, self._full = space, costs, costs(space.largest())
        features = np.array([self._features(arch) for arch, _ in rows.values()])
        self._models: dict[str, Ridge] = {}
        self.held_out: dict[str, dict[str, float]] = {}
        for name in {name: None for _, metrics in rows.values() for name in metrics}:
            values = np.array([metrics.get(name, math.nan) for _, metrics in rows.values()], dtype=float)
            if np.isfinite(values).all():
                self._models[name] = _fit(features, values)
                self.held_out[name] = _leave_one_out(features, values)

    def predict(self, arch: Arch) -> dict[str, tuple[float, float]]:
        """Metric -> (predicted value, its expected absolute error), both in the metric's unit."""
        features = self._features(arch)[None]
        values = {name: max(float(model.predict(features)[0]), 0.0) for name, model in self._models.items()}
        return {name: (value, value * self.held_out[name]["error"]) for name, value in values.items()}

    def _features(self, arch: Arch) -> np.ndarray:
        costs = self._costs(arch)
        # Scaled down, and so held back by the ridge: choices explain what parameters and MACs do not.
        choices = [0.2 * code for code in self._space.encode(arch)]
        return np.array([*(costs[n] / max(self._full[n], 1.0) for n in ("params", "macs")), *choices])


def _fit(features: np.ndarray, values: np.ndarray) -> Ridge:
    scale = float(np.abs(values).mean()) or 1.0
    # Errors count relative to the value: the small subnets are the ones budgets ask for.
    weights = (scale / np.maximum(np.abs(values), 1e-6 * scale)) ** 2
    model = Ridge(alpha=1e-3, positive=True, tol=1e-9)
    model.fit(features, values / scale, weights / weights.mean())
    model.coef_ *= scale
    model.intercept_ *= scale
    return model


def _leave_one_out(features: np.ndarray, values: np.ndarray) -> dict[str, float]:
    others = [np.arange(len(values)) != index for index in range(len(values))]
    predicted = np.array([_fit(features[o], values[o]).predict(features[~o])[0] for o in others])
    errors = np.abs(predicted - values) / np.maximum(np.abs(values), 1e-12)
    constant = min(np.ptp(values), np.ptp(predicted)) == 0
    rank_correlation = 0.0 if constant else float(spearmanr(values, predicted).statistic)
    return {"error": float(errors.mean()), "rank_correlation": rank_correlation}
