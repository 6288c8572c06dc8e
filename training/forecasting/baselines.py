"""What a network has to beat: the last value, and an autoregression fitted by least squares."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

AR_LAGS = 9
"""The order that is usual for sunspots, and a yardstick for anything else."""


@dataclass(frozen=True, slots=True)
class AutoRegression:
    """value(t) = bias + weights · the values before it, the oldest first; weights (lags,)."""

    weights: Numbers
    bias: float

    def forecast(self, histories: Numbers, horizon: int) -> Numbers:
        """Forecasts (B, horizon) of histories (B, lags or more), each step from the ones before."""
        lags = len(self.weights)
        known = histories[:, -lags:]
        for _ in range(horizon):
            following = known[:, -lags:] @ self.weights + self.bias
            known = np.column_stack([known, following])
        return known[:, lags:]


def fit_autoregression(values: Numbers, lags: int) -> AutoRegression:
    """Fitted to the one-step errors of values (moments,); of several best fits, the smallest."""
    windows = np.lib.stride_tricks.sliding_window_view(values, lags + 1)
    inputs = np.column_stack([windows[:, :-1], np.ones(len(windows))])
    solution = np.asarray(np.linalg.lstsq(inputs, windows[:, -1])[0], np.float64)
    return AutoRegression(solution[:-1], float(solution[-1]))


def persist(histories: Numbers, horizon: int) -> Numbers:
    """The last value, (B, horizon) times, of histories (B, lags)."""
    return np.repeat(histories[:, -1:], horizon, axis=1)
