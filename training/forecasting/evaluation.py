"""How far forecasts were off, step by step ahead."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def rmse_by_lead(forecasts: Numbers, truth: Numbers) -> Numbers:
    """Root mean squared error (horizon,) of forecasts (B, horizon), in the series' own unit."""
    return np.asarray(np.sqrt(np.square(forecasts - truth).mean(axis=0)))


def mase_by_lead(forecasts: Numbers, truth: Numbers, scale: float) -> Numbers:
    """Mean absolute scaled error (horizon,), of which 1 is what `naive_error` gives one step ahead.

    R. Hyndman, A. Koehler, "Another look at measures of forecast accuracy", Int. J. Forecasting 22, 2006.
    """
    return np.asarray(np.abs(forecasts - truth).mean(axis=0) / scale)


def naive_error(values: Numbers) -> float:
    """The mean absolute error of "as before", one step ahead, on values (moments,) to train on."""
    return float(np.abs(np.diff(values)).mean())


def score(forecasts: Mapping[str, Numbers], truth: Numbers, scale: float) -> dict[str, float]:
    """RMSE and MASE of the first step ahead and of the last, by names such as `ar9_rmse_12`.

    Args:
        forecasts: (B, horizon) each, by who made them; the network's name is empty.
        truth: (B, horizon).
        scale: of MASE, see `naive_error`.
    """
    metrics = {}
    for who, given in forecasts.items():
        prefix = f"{who}_" if who else ""
        for measure, by_lead in (
            ("rmse", rmse_by_lead(given, truth)),
            ("mase", mase_by_lead(given, truth, scale)),
        ):
            for lead in sorted({1, truth.shape[1]}):
                metrics[f"{prefix}{measure}_{lead}"] = float(by_lead[lead - 1])
    return metrics


def tell(metrics: Mapping[str, float]) -> str:
    """A line a measure: the network's, and in brackets the others'; of metrics as `score` names them."""
    lines = []
    for name in (name for name in metrics if name.startswith(("rmse_", "mase_"))):
        measure, lead = name.split("_")
        others = [other for other in metrics if other.endswith(f"_{name}")]
        rivals = ", ".join(f"{other.split('_')[0]} {metrics[other]:.4g}" for other in others)
        lines.append(f"{measure.upper()} {lead} ahead {metrics[name]:.4g} ({rivals})")
    return "test " + "\n     ".join(lines)
