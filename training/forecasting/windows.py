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


@dataclass(frozen=True, slots=True)
class Parts:
    """The ends of the training and the validation part, in time steps from the start."""

    train_end: int
    validation_end: int


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


def divide_by_time(data: SeriesData, recipe: SeriesRecipe, *, least_lags: int) -> Parts:
    """Split the series by the recipe's shares; `DataError` if a part is too short or constant.

    Args:
        least_lags: lags that the training part must have room for, besides the network's own.
    """
    count = len(data.values)
    test, validation = round(recipe.test_share * count), round(recipe.validation_share * count)
    train = count - test - validation
    window = max(recipe.network.window, least_lags)
    for name, rows, needed in (
        ("train", train, window + recipe.horizon + 1),
        ("validate", validation, recipe.horizon),
        ("test", test, recipe.horizon),
    ):
        if rows < needed:
            raise DataError(
                f"{data.name}: expected at least {needed} rows to {name} on, for {window} lags and "
                f"a horizon of {recipe.horizon}, got {rows} of {count}"
            )
    for column, values in zip(data.columns, data.values[:train].T, strict=True):
        if values.std() <= 1e-6 * np.abs(values).max():
            raise DataError(
                f"{data.name}, column {column}: expected values that vary, got {values[0]:g} in "
                f"all {train} rows to train on"
            )
    return Parts(train, train + validation)


def cut(values: NDArray[np.float64], first: int, end: int, *, steps: int, window: int) -> Windows:
    """Cut all rows with targets in [first, end) and a complete history."""
    origins = np.arange(max(first, window), end - steps + 1)
    histories = values[origins[:, None] + np.arange(-window, 0)]  # (B, T, F)
    targets = values[origins[:, None] + np.arange(steps), 0]  # (B, steps)
    return Windows(
        torch.from_numpy(histories.astype(np.float32)), torch.from_numpy(targets.astype(np.float32))
    )
