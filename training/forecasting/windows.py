"""Windows of a series: rows for training, validation and test, split by time.

    origin                time step of the first forecast value
    history, (T, F)       the T time steps before the origin, the input of a forecast
    targets, (steps,)     the values from the origin on

All targets of a part lie within it. The history of its first rows reaches into the part before,
since the past is known.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weir.training.data.series import SeriesData
from weir.training.errors import DataError
from weir.training.forecasting.recipes import SeriesRecipe

_VALIDATION_HORIZONS = 2
_MOST_VALIDATION = 0.25


@dataclass(frozen=True, slots=True)
class Parts:
    """The ends of the training and the validation part, in time steps from the start.

    `baseline_end` ends the part that AR(9) is fitted on and MASE is scaled by. It depends on the
    recipe's shares alone.
    """

    train_end: int
    validation_end: int
    baseline_end: int


@dataclass(frozen=True, slots=True)
class Windows:
    """Rows of one part: histories (B, T, F) and targets (B, steps), float32, unscaled."""

    histories: Tensor
    targets: Tensor

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.targets)

    def to(self, device: torch.device) -> "Windows":
        """Move the rows to a device."""
        return Windows(self.histories.to(device), self.targets.to(device))


def divide_by_time(count: int, recipe: SeriesRecipe) -> Parts:
    """Split `count` time steps by the recipe's shares.

    The validation part of a short series is longer than its share, as horizon and length allow: a
    few windows cannot choose between forecasts.
    """
    test, validation = round(recipe.test_share * count), round(recipe.validation_share * count)
    longer = min(_VALIDATION_HORIZONS * recipe.horizon, round(_MOST_VALIDATION * count))
    return Parts(count - test - max(validation, longer), count - test, count - test - validation)


def require_rows(data: SeriesData, parts: Parts, *, window: int, horizon: int, season: int) -> None:
    """`DataError` if a part is too short for windows of `window` values, or constant."""
    count = len(data.values)
    if season >= parts.train_end:
        raise DataError(
            f"{data.name}: expected a season below the {parts.train_end} rows to train on, "
            f"got {season}"
        )
    for name, rows, needed in (
        ("train", parts.train_end, window + horizon + 1),
        ("validate", parts.validation_end - parts.train_end, horizon),
        ("test", count - parts.validation_end, horizon),
    ):
        if rows < needed:
            raise DataError(
                f"{data.name}: expected at least {needed} rows to {name} on, for {window} lags and "
                f"a horizon of {horizon}, got {rows} of {count}"
            )
    train = data.values[: parts.train_end]
    for column, values in zip(data.columns, train.T, strict=True):
        if values.std() <= 1e-6 * np.abs(values).max():
            raise DataError(
                f"{data.name}, column {column}: expected values that vary, got {values[0]:g} in "
                f"all {len(train)} rows to train on"
            )


def cut(values: NDArray[np.float64], first: int, end: int, *, steps: int, window: int) -> Windows:
    """Cut all rows with targets in [first, end) and a complete history."""
    origins = np.arange(max(first, window), end - steps + 1)
    histories = values[origins[:, None] + np.arange(-window, 0)]  # (B, T, F)
    targets = values[origins[:, None] + np.arange(steps), 0]  # (B, steps)
    return Windows(
        torch.from_numpy(histories.astype(np.float32)), torch.from_numpy(targets.astype(np.float32))
    )
