"""Recipes of forecasting: one column of a series, some steps ahead.

Each recipe is a function from the data set to the settings that differ from the defaults.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weir.bundle.number_format import DecimalMark
from weir.training.data.series import SERIES_SETS, SUNSPOT_COLUMN, SUNSPOTS
from weir.training.recipe import CliOption, Recipe, Setting, Settings

FED_BACK = ("ar", "narx")
"""The kinds that forecast one step and feed their own outputs back."""


class ForecasterSettings(Settings):
    """The network of a forecaster."""

    kind: Literal["ar", "narx", "rnn", "gru", "lstm"] = Field(
        description="a linear map of them, a perceptron of them, or a recurrent cell"
    )
    lags: Annotated[int | None, CliOption()] = Field(
        default=None,
        ge=1,
        le=4096,
        description="number of past values that the network reads; none: as season and length "
        "of the series allow",
    )
    exogenous_lags: Annotated[int | None, CliOption()] = Field(
        default=None,
        ge=1,
        le=4096,
        description="past values of exogenous columns, for ar and narx; none: as many as lags",
    )
    hidden: Annotated[int, CliOption()] = Field(
        default=16, ge=1, description="units of a layer; ar has none"
    )
    layers: Annotated[int, CliOption()] = Field(
        default=1, ge=1, le=16, description="recurrent layers"
    )
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    linear: bool = Field(
        default=True, description="add a linear map, for levels that training never saw"
    )
    start: Literal["persistence", "combination"] = Field(
        default="persistence",
        description="the linear map's first weights: the last value, or the combination of linear "
        "forecasts that the errors before the test part suggest",
    )

    @model_validator(mode="after")
    def _cells_read_every_column_alike(self) -> Self:
        if self.exogenous_lags is not None and self.kind not in FED_BACK:
            raise ValueError("exogenous_lags goes with ar and narx")
        if self.layers > 1 and self.kind in FED_BACK:
            raise ValueError("layers goes with recurrent cells")
        return self


class SeriesRecipe(Recipe):
    """Recipe of a forecaster; rows are split by time: training, then validation, then test."""

    task: Literal["forecasting"]
    network: ForecasterSettings
    value: Annotated[str | None, CliOption(metavar="COLUMN")] = Field(
        default=None, description="column to forecast; none: the one of the named data set"
    )
    exogenous: Annotated[tuple[str, ...], CliOption(metavar="COLUMN,…")] = Field(
        default=(),
        description="columns that the forecast may depend on; a name with commas goes in double "
        "quotes",
    )
    decimal: Annotated[DecimalMark | None, CliOption()] = Field(
        default=None, description="the decimal mark of a CSV file that leaves it open"
    )
    season: Annotated[int | None, CliOption()] = Field(
        default=None,
        ge=0,
        le=2048,
        description="steps after which the series repeats; 0: never; none: found in the training "
        "part",
    )
    horizon: Annotated[int, CliOption()] = Field(
        default=12, ge=1, le=512, description="number of steps to forecast"
    )
    test_share: float = Field(
        default=0.2, gt=0.0, lt=1.0, description="share of the rows, at the end"
    )

    @model_validator(mode="after")
    def _parts_and_columns_are_different(self) -> Self:
        if self.validation_share + self.test_share >= 1.0:
            raise ValueError("validation_share and test_share must leave rows to train on")
        columns = [*self.exogenous, *([self.value] if self.value else [])]
        if len(set(columns)) < len(columns):
            raise ValueError(f"value and exogenous must be different columns, got {columns}")
        if self.label_smoothing:
            raise ValueError("label_smoothing must be 0: numbers are no labels")
        if self.network.exogenous_lags is not None and not self.exogenous:
            raise ValueError("exogenous_lags goes with exogenous columns")
        return self


def _recipe(
    kind: str, learning_rate: float, epochs: int, **network: Setting
) -> Callable[[str], dict[str, Setting]]:
    def recipe(data: str) -> dict[str, Setting]:
        return {
            "task": "forecasting",
            "architecture": kind if kind in FED_BACK else f"series-{kind}",
            "network": {"kind": kind, "start": "combination", **network},
            "value": SUNSPOT_COLUMN if data == SUNSPOTS else None,
            "optimizer": {"kind": "adamw", "learning_rate": learning_rate, "weight_decay": 1e-2},
            "epochs": epochs,
            "batch_size": 64,
            "patience": 100,
            "average_decay": 0.98,
            # bfloat16 has 8 significant bits, too few for measurements.
            "mixed_precision": False,
            # The matrices of a step are small.
            "cpu_threads": 1,
        }

    return recipe


RECIPES: dict[str, Callable[[str], dict[str, Setting]]] = {
    # The common loop trains it, so validation may stop it before the least-squares fit.
    "ar": _recipe("ar", 1e-3, 50),
    "narx": _recipe("narx", 2e-3, 50, hidden=32, dropout=0.3),
    **{
        f"series-{cell}": _recipe(cell, 4e-3, 25, hidden=32, dropout=0.3)
        for cell in ("rnn", "gru", "lstm")
    },
}
"""Autoregression, a perceptron of past values plus a linear map, and recurrent networks."""
MADE_FOR = dict.fromkeys(RECIPES, (*SERIES_SETS, "PATH"))
"""The data sets of each recipe, the default first; PATH is the user's own file."""


QUICK: dict[str, dict[str, Setting]] = {
    name: {"epochs": 10 if name in FED_BACK else 4, "network": {"lags": 24}} for name in RECIPES
}
"""Changes of the quick form, for tests and the demo: seconds on one core."""
