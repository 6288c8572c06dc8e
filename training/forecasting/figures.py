"""The forecast figure: measured values, forecasts of network and baselines, and their errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from weir.training.data.series import SeriesData
from weir.training.figures import save
from weir.training.forecasting.evaluation import PERSISTENCE, SEASON, Numbers, rmse_by_lead
from weir.training.forecasting.intervals import LEVEL

FORECAST = "forecast.png"
SHOWN_STEPS = 400
"""The last time steps are shown; more would be indistinguishable."""

# From the Okabe-Ito palette, which colour-blind readers can distinguish.
_COLOURS = {"": "#d55e00", PERSISTENCE: "#999999", SEASON: "#009e73"}
_BASELINE, _TRUTH = "#0072b2", "#000000"


@dataclass(frozen=True, slots=True)
class ForecastFigure:
    """The content of the figure.

    first: time step of the first test value.
    truth: (B, horizon), row b from time step `first` + b on.
    forecasts: likewise, by the model's name; the network's name is empty.
    bounds: likewise, of the network's prediction interval.
    """

    name: str
    data: SeriesData
    first: int
    truth: Numbers
    forecasts: Mapping[str, Numbers]
    bounds: tuple[Numbers, Numbers] | None = None


def draw_forecast(content: ForecastFigure, path: Path) -> None:
    """Draw the test values with forecasts 1 and `horizon` steps ahead, and the error by step."""
    horizon = content.truth.shape[1]
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[2.4, 1.0])
    near, errors = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[:, 1])
    far = figure.add_subplot(grid[1, 0], sharex=near, sharey=near)
    _draw_lead(near, content, 1)
    _draw_lead(far, content, horizon)
    far.set_xlabel("time step, from the start of the file")
    for model, forecasts in content.forecasts.items():
        leads = np.arange(1, horizon + 1)
        marker = "o" if horizon == 1 else "."
        errors.plot(
            leads,
            rmse_by_lead(forecasts, content.truth),
            color=_colour(model),
            marker=marker,
            label=model or content.name,
        )
    errors.set_ylim(bottom=0.0)
    errors.set_xlabel("steps ahead")
    errors.set_ylabel("RMSE on the test part")
    errors.xaxis.set_major_locator(MaxNLocator(integer=True))
    errors.grid(alpha=0.3)
    errors.legend(loc="lower right")
    figure.suptitle(f"{content.name} on {Path(content.data.name).name}")
    save(figure, path)


def _draw_lead(axes: Axes, content: ForecastFigure, lead: int) -> None:
    """Draw the forecasts made `lead` steps before, at the time step they are for."""
    steps = np.arange(len(content.truth)) + content.first + lead - 1
    shown = slice(-SHOWN_STEPS, None)
    axes.plot(steps[shown], content.truth[shown, lead - 1], color=_TRUTH, lw=0.9, label="measured")
    if content.bounds is not None:
        lower, upper = (each[shown, lead - 1] for each in content.bounds)
        label = f"{LEVEL:.0%} interval"
        axes.fill_between(
            steps[shown], lower, upper, color=_colour(""), alpha=0.2, lw=0, label=label
        )
    # These are the measured line moved to the right and would add nothing.
    moved = {PERSISTENCE, SEASON}
    for model in [name for name in content.forecasts if name not in moved][::-1]:
        line = content.forecasts[model][shown, lead - 1]
        axes.plot(
            steps[shown], line, color=_colour(model), lw=1.1, alpha=0.9, label=model or content.name
        )
    axes.set_title(f"{lead} step{'s' * (lead > 1)} ahead", fontsize="medium")
    axes.set_ylabel(content.data.columns[0])
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", ncols=3, fontsize="small")


def _colour(model: str) -> str:
    return _COLOURS.get(model, _BASELINE)
