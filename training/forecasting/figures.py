"""The forecast figure: measured values, forecasts of network and baselines, and their errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
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
    shown: names of the baselines for the reader.
    bounds: likewise as `truth`, of the network's prediction interval.
    """

    name: str
    data: SeriesData
    first: int
    truth: Numbers
    forecasts: Mapping[str, Numbers]
    shown: Mapping[str, str]
    bounds: tuple[Numbers, Numbers] | None = None

    def label(self, model: str) -> str:
        """The name in the legend."""
        return self.shown.get(model, model or self.name)


def draw_forecast(content: ForecastFigure, path: Path) -> None:
    """Write the figure of `forecast_figure` as PNG."""
    save(forecast_figure(content), path)


def forecast_figure(content: ForecastFigure) -> Figure:
    """Draw the test values with forecasts 1 and `horizon` steps ahead, and the error by step."""
    horizon = content.truth.shape[1]
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[2.4, 1.0])
    near, errors = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[:, 1])
    far = figure.add_subplot(grid[1, 0], sharex=near, sharey=near)
    _draw_lead(near, content, 1)
    _draw_lead(far, content, horizon)
    if content.data.dates is None:
        far.set_xlabel("time step, from the start of the file")
        far.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        far.xaxis.set_major_locator(locator)
        far.xaxis.set_major_formatter(
            ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
        )
    # Below the axes, where it covers no line.
    handles, labels = far.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=4, fontsize="small")
    for model, forecasts in content.forecasts.items():
        leads = np.arange(1, horizon + 1)
        marker = "o" if horizon == 1 else "."
        errors.plot(
            leads,
            rmse_by_lead(forecasts, content.truth),
            color=_colour(model),
            marker=marker,
            label=content.label(model),
        )
    errors.set_ylim(bottom=0.0)
    errors.set_xlabel("steps ahead")
    errors.set_ylabel("RMSE on the test part")
    errors.xaxis.set_major_locator(MaxNLocator(integer=True))
    errors.grid(alpha=0.3)
    errors.legend(loc="lower right")
    figure.suptitle(f"{content.name} on {Path(content.data.name).name}", parse_math=False)
    return figure


def _draw_lead(axes: Axes, content: ForecastFigure, lead: int) -> None:
    """Draw the forecasts made `lead` steps before, at the time step they are for."""
    steps = np.arange(len(content.truth)) + content.first + lead - 1
    dates = content.data.dates
    places: list[Any] = steps.tolist() if dates is None else [dates[step] for step in steps]
    shown = slice(-SHOWN_STEPS, None)
    axes.plot(places[shown], content.truth[shown, lead - 1], color=_TRUTH, lw=0.9, label="measured")
    if content.bounds is not None:
        lower, upper = (each[shown, lead - 1] for each in content.bounds)
        label = f"{LEVEL:.0%} interval"
        axes.fill_between(
            places[shown], lower, upper, color=_colour(""), alpha=0.2, lw=0, label=label
        )
    # These are the measured line moved to the right and would add nothing.
    moved = {PERSISTENCE, SEASON}
    for model in [name for name in content.forecasts if name not in moved][::-1]:
        line = content.forecasts[model][shown, lead - 1]
        axes.plot(
            places[shown], line, color=_colour(model), lw=1.1, alpha=0.9, label=content.label(model)
        )
    axes.set_title(f"{lead} step{'s' * (lead > 1)} ahead", fontsize="medium")
    axes.set_ylabel(content.data.columns[0], parse_math=False)
    axes.grid(alpha=0.3)


def _colour(model: str) -> str:
    return _COLOURS.get(model, _BASELINE)
