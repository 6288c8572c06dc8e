"""Splits by time: no earlier part contains values of a later one."""

import numpy as np
import pytest

from weir.training.data.series import SeriesData
from weir.training.errors import DataError
from weir.training.forecasting.recipes import SeriesRecipe
from weir.training.forecasting.windows import Parts, cut, divide_by_time, require_rows
from weir.training.recipe import Setting
from weir.training.recipes import make_recipe


def recipe(**changes: Setting) -> SeriesRecipe:
    settings: dict[str, Setting] = {"value": "y", "network": {"lags": 3}, "horizon": 2}
    made = make_recipe("ar", "/my.csv", **{**settings, **changes})
    assert isinstance(made, SeriesRecipe)
    return made


def counting(count: int) -> SeriesData:
    """Time step t has the value t, and 100 + t in the other column."""
    moments = np.arange(count, dtype=np.float64)
    return SeriesData("my.csv", ("y", "u"), np.column_stack([moments, 100 + moments]), "0")


def test_parts_follow_each_other_in_time() -> None:
    parts = divide_by_time(100, recipe())

    assert parts == Parts(train_end=70, validation_end=80, baseline_end=70)


def test_a_short_series_validates_on_two_horizons() -> None:
    parts = divide_by_time(100, recipe(horizon=12))

    assert parts == Parts(train_end=56, validation_end=80, baseline_end=70)


def require(count: int, made: SeriesRecipe, season: int = 0) -> None:
    parts = divide_by_time(count, made)
    require_rows(counting(count), parts, window=9, horizon=made.horizon, season=season)


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
        (11, {}, "at least 12 rows to train on, for 9 lags and a horizon of 2, got 6 of 11"),
        (42, {"horizon": 12}, "at least 12 rows to validate on, .* got 10 of 42"),
        (100, {"test_share": 0.01}, "at least 2 rows to test on, .* got 1 of 100"),
    ],
    ids=["train", "validate", "test"],
)
def test_too_few_rows_are_refused(count: int, changes: dict[str, Setting], message: str) -> None:
    with pytest.raises(DataError, match=rf"my\.csv: expected {message}"):
        require(count, recipe(**changes))


def test_a_season_longer_than_the_training_part_is_refused() -> None:
    require(100, recipe(), season=69)

    with pytest.raises(DataError, match="a season below the 70 rows to train on, got 70"):
        require(100, recipe(), season=70)


def test_a_column_that_does_not_vary_is_refused() -> None:
    data = counting(100)
    data.values[:70, 1] = 7.0

    with pytest.raises(DataError, match="column u: expected values that vary, got 7 in all 70"):
        require_rows(data, divide_by_time(100, recipe()), window=1, horizon=2, season=0)
