"""Forecast errors by lead time; baselines: persistence and a least-squares autoregression."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weir.training.forecasting.intervals import LEVEL
from weir.training.forecasting.windows import Parts

Numbers = NDArray[np.float64]

AR_LAGS = 9
"""The usual order for sunspots, and a reference for other series."""
AR, PERSISTENCE, SEASON = f"ar{AR_LAGS}", "persistence", "season"
"""The baselines: least squares, the last value, and the value of one season before."""
COVERAGE = "coverage"
"""The metric's name: the share of values within their prediction interval."""


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
    """Return RMSE and MASE of all steps, of the first and of the last: `ar9_rmse`, `ar9_rmse_12`.

    Args:
        forecasts: (B, horizon) each, by the model's name; the network's name is empty.
        scale: of MASE, from `naive_error`.
    """
    metrics = {}
    for name, given in forecasts.items():
        prefix = f"{name}_" if name else ""
        errors = given - truth
        for measure, overall, by_lead in (
            ("rmse", np.sqrt(np.square(errors).mean()), rmse_by_lead(given, truth)),
            ("mase", np.abs(errors).mean() / scale, mase_by_lead(given, truth, scale)),
        ):
            metrics[f"{prefix}{measure}"] = float(overall)
            for lead in sorted({1, truth.shape[1]}):
                metrics[f"{prefix}{measure}_{lead}"] = float(by_lead[lead - 1])
    return metrics


def forecast_baselines(
    values: Numbers, parts: Parts, *, horizon: int, season: int
) -> dict[str, Numbers]:
    """Forecasts (B, horizon) of the baselines for each row of the test part, by name.

    Args:
        values: (T,), all of the series.
        season: 0: none, and no forecast of last season's values.
    """
    lags = max(AR_LAGS, season)
    origins = np.arange(max(parts.validation_end, lags), len(values) - horizon + 1)
    before = values[origins[:, None] + np.arange(-lags, 0)]  # (B, lags)
    fitted = fit_autoregression(values[: parts.baseline_end], AR_LAGS)
    forecasts = {AR: fitted.forecast(before, horizon), PERSISTENCE: persist(before, horizon)}
    if season:
        forecasts[SEASON] = repeat_season(before, season, horizon)
    return forecasts


def baseline_names(season: int | None) -> dict[str, str]:
    """What the baselines are called for the user, by their names in the metrics."""
    return {AR: f"AR({AR_LAGS})", PERSISTENCE: PERSISTENCE, SEASON: f"{season} steps before"}


def summarise(metrics: Mapping[str, float], season: int | None, horizon: int) -> str:
    """Format the metrics of `score`: a line each, with the baselines' in brackets."""
    names = baseline_names(season)
    lines = []
    for measure in ("rmse", "mase"):
        for lead in ("", *(f"_{step}" for step in sorted({1, horizon}))):
            name = f"{measure}{lead}"
            if name not in metrics:
                continue  # a run of before has no errors over all steps
            baselines = ", ".join(
                f"{shown} {metrics[f'{key}_{name}']:.4g}"
                for key, shown in names.items()
                if f"{key}_{name}" in metrics
            )
            where = f"{lead[1:]} ahead" if lead else f"over {horizon} steps"
            lines.append(f"{measure.upper()} {where} {metrics[name]:.4g} ({baselines})")
    if COVERAGE in metrics:
        lines.insert(1, f"{metrics[COVERAGE]:.1%} of the values within the {LEVEL:.0%} interval")
    return "test " + "\n     ".join(lines)


def compare(metrics: Mapping[str, float], season: int | None) -> str | None:
    """Say in one line that a baseline errs no more over the whole horizon; None if none does so."""
    baselines = {
        AR: f"AR({AR_LAGS})",
        PERSISTENCE: "the last value",
        SEASON: f"the value of {season} steps before",
    }
    found = {name: metrics[f"{name}_rmse"] for name in baselines if f"{name}_rmse" in metrics}
    if not found or "rmse" not in metrics:
        return None
    best = min(found, key=found.__getitem__)
    if found[best] > metrics["rmse"]:
        return None
    advice = {
        AR: f"try weir train ar --lags {AR_LAGS}",
        PERSISTENCE: "use that value"
        + ("" if season else ", or try --season N if the series repeats"),
        SEASON: "use that value, or try weir train ar, or more seasons of data",
    }
    return (
        f"not better than {baselines[best]} over the whole horizon: "
        f"RMSE {metrics['rmse']:.4g}, {baselines[best]} {found[best]:.4g}; {advice[best]}"
    )


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


def repeat_season(histories: Numbers, season: int, horizon: int) -> Numbers:
    """Repeat the last `season` values of histories (B, lags): (B, horizon)."""
    return histories[:, -season:][:, np.arange(horizon) % season]
