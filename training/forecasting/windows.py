"""A series cut by time into three parts, and the windows of it that rows are made of.

    origin                the moment of the first value that is forecast
    history, (T, F)       the T moments before it: all that a forecast may know
    targets, (steps,)     the values from it on

A part's targets lie all within it. The history of its first rows reaches into the part before: the past is known.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weir.training.data.series import SeriesData
from weir.training.errors import DataError
from weir.training.forecasting.recipe import SeriesRecipe


@dataclass(frozen=True, slots=True)
class Parts:
    """Where training ends, and where validation does, in moments from the first."""

    train_end: int
    validation_end: int


@dataclass(frozen=True, slots=True)
class Windows:
    """Rows of one part: histories (B, T, F) and targets (B, steps), both float32, as measured."""

    histories: Tensor
    targets: Tensor

    def __len__(self) -> int:
        """How many rows."""
        return len(self.targets)

    def to(self, where: torch.device) -> "Windows":
        """The same on a device."""
        return Windows(self.histories.to(where), self.targets.to(where))


def divide_by_time(data: SeriesData, recipe: SeriesRecipe, *, least_lags: int) -> Parts:
    """Cut by the recipe's shares.

    Args:
        data: all of it.
        recipe: whose shares, lags and horizon count.
        least_lags: that training must leave room for, whatever the network's lags.

    Raises:
        DataError: a part is too short for one row, or a column does not vary in the training part.
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
                f"{data.name}: expected at least {needed} rows to {name} on, for {window} lags and a horizon of "
                f"{recipe.horizon}, found {rows} of {count}"
            )
    for column, values in zip(data.columns, data.values[:train].T, strict=True):
        if values.std() <= 1e-6 * np.abs(values).max():
            raise DataError(
                f"{data.name}, column {column}: expected values that vary, found {values[0]:g} in all {train} rows to train on"
            )
    return Parts(train, train + validation)


def cut(values: NDArray[np.float64], first: int, end: int, *, steps: int, window: int) -> Windows:
    """All rows whose targets lie in [first, end) and whose history exists."""
    origins = np.arange(max(first, window), end - steps + 1)
    histories = values[origins[:, None] + np.arange(-window, 0)]  # (B, T, F)
    targets = values[origins[:, None] + np.arange(steps), 0]  # (B, steps)
    return Windows(
        torch.from_numpy(histories.astype(np.float32)),
        torch.from_numpy(targets.astype(np.float32)),
    )
