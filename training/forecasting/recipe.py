"""Recipes of series: the values of one column, some steps ahead."""

from typing import Literal, Self

from pydantic import Field, model_validator

from weir.training.recipe import Recipe, Settings

TASK = "forecasting"
FED_BACK = ("ar", "narx")
"""The kinds that look one step ahead and read their own outputs back."""


class ForecasterSettings(Settings):
    """What reads the last values."""

    kind: Literal["ar", "narx", "rnn", "gru", "lstm"] = Field(
        description="a linear map of them, a perceptron of them, or a recurrent cell"
    )
    lags: int = Field(ge=1, le=4096, description="how many of the last values are read")
    exogenous_lags: int | None = Field(
        default=None, ge=1, le=4096, description="of the other columns, ar and narx; none: as many"
    )
    hidden: int = Field(default=16, ge=1, description="units of a layer; ar has none")
    layers: int = Field(default=1, ge=1, le=16, description="of recurrent cells")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    linear: bool = Field(
        default=True, description="a linear map beside the network, for levels training never saw"
    )

    @model_validator(mode="after")
    def _cells_read_every_column_alike(self) -> Self:
        if self.exogenous_lags is not None and self.kind not in FED_BACK:
            raise ValueError("exogenous_lags goes with ar and narx")
        if self.layers > 1 and self.kind in FED_BACK:
            raise ValueError("layers goes with recurrent cells")
        return self

    @property
    def window(self) -> int:
        """Steps of the network's input."""
        return max(self.lags, self.exogenous_lags or 0)


class SeriesRecipe(Recipe):
    """How a network learns to forecast.

    The rows are divided by time: first those to train on, then a share to validate on, then one to test on.
    """

    task: Literal["forecasting"]
    network: ForecasterSettings
    value: str | None = Field(
        default=None, description="the column to forecast; none: a named set's own"
    )
    exogenous: tuple[str, ...] = Field(default=(), description="columns that it may depend on")
    horizon: int = Field(default=12, ge=1, le=512, description="how many steps are forecast")
    test_share: float = Field(default=0.2, gt=0.0, lt=1.0, description="of the rows, the last ones")

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
