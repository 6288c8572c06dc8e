"""Splits by time: no earlier part contains values of a later one."""

import numpy as np
import pytest

from weir.training.data.series import SeriesData
from weir.training.errors import DataError
from weir.training.forecasting.recipes import SeriesRecipe
from weir.training.forecasting.windows import cut, divide_by_time
from weir.training.recipe import Setting
from weir.training.recipes import make_recipe


def recipe(**changes: Setting) -> SeriesRecipe:
    made = make_recipe("ar", "/my.csv", value="y", network={"lags": 3}, horizon=2, **changes)
    assert isinstance(made, SeriesRecipe)
    return made


def counting(count: int) -> SeriesData:
    """Time step t has the value t, and 100 + t in the other column."""
    moments = np.arange(count, dtype=np.float64)
    return SeriesData("my.csv", ("y", "u"), np.column_stack([moments, 100 + moments]), "0")


def test_parts_follow_each_other_in_time() -> None:
    parts = divide_by_time(counting(100), recipe(), least_lags=1)

    assert (parts.train_end, parts.validation_end) == (70, 80)


def test_a_row_is_what_came_before_and_what_came_after() -> None:
    rows = cut(counting(100).values, 70, 80, steps=2, window=3)

    assert rows.histories[0].tolist() == [[67, 167], [68, 168], [69, 169]]
    assert rows.targets[0].tolist() == [70, 71] and rows.targets[-1].tolist() == [78, 79]
    assert len(rows) == 9


def test_the_first_rows_wait_for_their_history() -> None:
    rows = cut(counting(100).values, 0, 70, steps=1, window=3)

    assert rows.targets[0].tolist() == [3] and len(rows) == 67


@pytest.mark.parametrize(
    ("count", "changes", "message"),
    [
        (11, {}, "at least 12 rows to train on, for 9 lags and a horizon of 2, got 8 of 11"),
        (19, {"validation_share": 0.04}, "at least 2 rows to validate on, .* got 1 of 19"),
        (19, {"test_share": 0.04}, "at least 2 rows to test on, .* got 1 of 19"),
    ],
    ids=["train", "validate", "test"],
)
def test_too_few_rows_are_refused(count: int, changes: dict[str, Setting], message: str) -> None:
    with pytest.raises(DataError, match=rf"my\.csv: expected {message}"):
        divide_by_time(counting(count), recipe(**changes), least_lags=9)


def test_a_column_that_does_not_vary_is_refused() -> None:
    data = counting(100)
    data.values[:70, 1] = 7.0

    with pytest.raises(DataError, match="column u: expected values that vary, got 7 in all 70"):
        divide_by_time(data, recipe(), least_lags=1)
