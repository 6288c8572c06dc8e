"""What a network forecast where it was tested, beside what came, as a picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from weir.training.data.series import SeriesData
from weir.training.figures import save
from weir.training.forecasting.evaluation import rmse_by_lead

FORECAST = "forecast.png"
MOST_MOMENTS = 600
"""More could not be told apart; the last ones are shown."""

# From the Okabe-Ito palette, which everybody can tell apart.
_COLOURS = {"": "#d55e00", "persistence": "#999999"}
_BASELINE, _TRUTH = "#0072b2", "#000000"

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What there is to draw.

    name: of the recipe.
    data: the whole series.
    first: the moment of the first value that was held out.
    truth: (B, horizon), row b from the moment `first` + b on.
    forecasts: likewise, by who made them; the network's name is empty.
    """

    name: str
    data: SeriesData
    first: int
    truth: Numbers
    forecasts: Mapping[str, Numbers]


def draw_forecast(drawn: Drawn, path: Path) -> None:
    """The held-out values with forecasts one step and `horizon` steps ahead, and the error by step."""
    horizon = drawn.truth.shape[1]
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[2.4, 1.0])
    near, errors = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[:, 1])
    far = figure.add_subplot(grid[1, 0], sharex=near, sharey=near)
    _draw_lead(near, drawn, 1)
    _draw_lead(far, drawn, horizon)
    far.set_xlabel("moment, from the first of the file")
    for who, forecasts in drawn.forecasts.items():
        leads = np.arange(1, horizon + 1)
        marker = "o" if horizon == 1 else "."
        errors.plot(
            leads,
            rmse_by_lead(forecasts, drawn.truth),
            color=_colour(who),
            marker=marker,
            label=who or drawn.name,
        )
    errors.set_ylim(bottom=0.0)
    errors.set_xlabel("steps ahead")
    errors.set_ylabel("RMSE on the test part")
    errors.xaxis.set_major_locator(MaxNLocator(integer=True))
    errors.grid(alpha=0.3)
    errors.legend(loc="lower right")
    figure.suptitle(f"{drawn.name} on {Path(drawn.data.name).name}")
    save(figure, path)


def _draw_lead(axes: Axes, drawn: Drawn, lead: int) -> None:
    """What was forecast `lead` steps before, against the moment it was for."""
    moments = np.arange(len(drawn.truth)) + drawn.first + lead - 1
    shown = slice(-MOST_MOMENTS, None)
    axes.plot(moments[shown], drawn.truth[shown, lead - 1], color=_TRUTH, lw=0.9, label="measured")
    # Persistence is the truth moved to the right: one more line that shows nothing new.
    for who in [who for who in drawn.forecasts if who != "persistence"][::-1]:
        line = drawn.forecasts[who][shown, lead - 1]
        axes.plot(
            moments[shown], line, color=_colour(who), lw=1.1, alpha=0.9, label=who or drawn.name
        )
    axes.set_title(f"{lead} step{'s' * (lead > 1)} ahead", fontsize="medium")
    axes.set_ylabel(drawn.data.columns[0])
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", ncols=3, fontsize="small")


def _colour(who: str) -> str:
    return _COLOURS.get(who, _BASELINE)
