"""Forecast errors by lead time; baselines: persistence and a least-squares autoregression."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

AR_LAGS = 9
"""The usual order for sunspots, and a reference for other series."""


def rmse_by_lead(forecasts: Numbers, truth: Numbers) -> Numbers:
    """Root mean squared error (horizon,) of forecasts (B, horizon), in the series' own unit."""
    return np.asarray(np.sqrt(np.square(forecasts - truth).mean(axis=0)))


def mase_by_lead(forecasts: Numbers, truth: Numbers, scale: float) -> Numbers:
    """Mean absolute scaled error (horizon,); 1 is the error of persistence on the training part.

    R. Hyndman, A. Koehler, "Another look at measures of forecast accuracy", Int. J. Forecasting
    22, 2006.
    """
    return np.asarray(np.abs(forecasts - truth).mean(axis=0) / scale)


def naive_error(values: Numbers) -> float:
    """Mean absolute one-step error of persistence on the training values (T,)."""
    return float(np.abs(np.diff(values)).mean())


def score(forecasts: Mapping[str, Numbers], truth: Numbers, scale: float) -> dict[str, float]:
    """Return RMSE and MASE of the first and the last step, by names such as `ar9_rmse_12`.

    Args:
        forecasts: (B, horizon) each, by the model's name; the network's name is empty.
        scale: of MASE, from `naive_error`.
    """
    metrics = {}
    for name, given in forecasts.items():
        prefix = f"{name}_" if name else ""
        for measure, by_lead in (
            ("rmse", rmse_by_lead(given, truth)),
            ("mase", mase_by_lead(given, truth, scale)),
        ):
            for lead in sorted({1, truth.shape[1]}):
                metrics[f"{prefix}{measure}_{lead}"] = float(by_lead[lead - 1])
    return metrics


def summarise(metrics: Mapping[str, float]) -> str:
    """Format the metrics of `score`: a line each, with the baselines' in brackets."""
    lines = []
    for name in (name for name in metrics if name.startswith(("rmse_", "mase_"))):
        measure, lead = name.split("_")
        others = [other for other in metrics if other.endswith(f"_{name}")]
        baselines = ", ".join(f"{other.split('_')[0]} {metrics[other]:.4g}" for other in others)
        lines.append(f"{measure.upper()} {lead} ahead {metrics[name]:.4g} ({baselines})")
    return "test " + "\n     ".join(lines)


@dataclass(frozen=True, slots=True)
class AutoRegression:
    """value(t) = bias + weights · past values, the oldest first; weights (lags,)."""

    weights: Numbers
    bias: float

    def forecast(self, histories: Numbers, horizon: int) -> Numbers:
        """Forecast (B, horizon) from histories (B, lags or more), feeding outputs back."""
        lags = len(self.weights)
        known = histories[:, -lags:]
        for _ in range(horizon):
            following = known[:, -lags:] @ self.weights + self.bias
            known = np.column_stack([known, following])
        return known[:, lags:]


def fit_autoregression(values: Numbers, lags: int) -> AutoRegression:
    """Fit by least squares of one-step errors on values (T,); a tie takes the smallest norm."""
    windows = np.lib.stride_tricks.sliding_window_view(values, lags + 1)
    inputs = np.column_stack([windows[:, :-1], np.ones(len(windows))])
    solution = np.asarray(np.linalg.lstsq(inputs, windows[:, -1])[0], np.float64)
    return AutoRegression(solution[:-1], float(solution[-1]))


def persist(histories: Numbers, horizon: int) -> Numbers:
    """Repeat the last value of histories (B, lags): (B, horizon)."""
    return np.repeat(histories[:, -1:], horizon, axis=1)
