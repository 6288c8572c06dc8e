"""What a contract says of a model that forecasts a series.

Rules:

- `history` FP32 [batch, lags, 1 + exogenous] holds a row's last moments, the oldest first: the target's column, then
  the exogenous ones in their order. Values are as they were measured; scaling is the graph's.
- `forecast` FP32 [batch, horizon] holds the target's values that follow.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from weir.bundle.parts import Part, Positive

Column = Annotated[str, Field(min_length=1)]


class Series(Part):
    """Of which columns so many moments make one row, and how many are forecast."""

    input: str = "history"
    output: str = "forecast"
    target: Column
    exogenous: list[Column] = Field(default_factory=list)
    lags: Positive
    horizon: Positive

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        columns = [self.target, *self.exogenous]
        if len(set(columns)) < len(columns):
            raise ValueError(f"expected columns of different names, got {columns}")
        return self

    def check_shapes(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raise ValueError unless tensors of these shapes, batch first, hold its input and its output."""
        columns = 1 + len(self.exogenous)
        for name, wanted in ((self.input, (self.lags, columns)), (self.output, (self.horizon,))):
            found = tuple(shapes[name][1:]) if name in shapes else None
            if found != wanted:
                raise ValueError(f"series: {name}: expected rows of shape {wanted}, got {found}")


def check_series(task: str, series: Series | None) -> None:
    """Raise ValueError unless forecasting, and nothing else, comes with a series."""
    if (task == "forecasting") != (series is not None):
        expected = "a series with" if series is None else "none without"
        raise ValueError(f"series: expected {expected} the task forecasting, got {task}")
