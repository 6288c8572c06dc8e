"""The contract's part for forecasts."""

import json

import pytest

from weir.bundle.contract import Contract, Series, Tolerance, parse
from weir.bundle.errors import BrokenBundle

SERIES = {"target": "sales", "exogenous": ["price"], "lags": 36, "horizon": 12}


def text(**changes: object) -> bytes:
    plain = {
        "format": 1,
        "task": "forecasting",
        "architecture": "narx",
        "tolerance": {"absolute": 1e-5, "relative": 1e-5},
        "series": SERIES,
    }
    return json.dumps({**plain, **changes}).encode()


def test_a_series_is_read_with_its_defaults() -> None:
    series = parse(text()).series

    assert series == Series(
        input="history",
        output="forecast",
        target="sales",
        exogenous=["price"],
        lags=36,
        horizon=12,
    )


def test_an_interval_is_read_with_its_series() -> None:
    interval = {"level": 0.8, "lower": [-1.0] * 12, "upper": [2.0] * 12}

    series = parse(text(series={**SERIES, "interval": interval})).series

    assert series is not None and series.interval is not None
    assert series.interval.model_dump() == {**interval, "is_relative": False}


def interval(steps: int, **changes: object) -> dict[str, object]:
    plain = {"level": 0.8, "lower": [-1.0] * steps, "upper": [1.0] * steps}
    return {"series": {**SERIES, "interval": {**plain, **changes}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"series": None}, "series: expected a series with the task forecasting, got forecasting"),
        ({"task": "other"}, "series: expected none without the task forecasting, got other"),
        (
            {"series": {**SERIES, "lags": 0}},
            "series.lags: expected greater than or equal to 1, got 0",
        ),
        ({"series": {**SERIES, "horizon": 1.5}}, "series.horizon: expected a valid integer"),
        ({"series": {**SERIES, "target": ""}}, "series.target: expected"),
        (
            {"series": {**SERIES, "exogenous": ["sales"]}},
            "series: expected columns of different names",
        ),
        ({"series": {**SERIES, "step": "month"}}, "series.step: unknown key"),
        (interval(11), "series: expected an interval of 12 steps, got 11"),
        (interval(12, lower=[0.0]), "expected as many lower as upper numbers, got 1 and 12"),
        (interval(12, lower=[2.0] * 12), "expected lower <= upper, got 2 and 1, 1 steps ahead"),
        (interval(12, level=0.0), "series.interval.level: expected greater than 0"),
        (interval(12, level=1.0), "series.interval.level: expected less than 1"),
    ],
    ids=[
        *("missing", "other-task", "lags", "horizon", "target", "twice", "unknown"),
        *("steps", "bounds", "order", "level", "all"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BrokenBundle, match=message):
        parse(text(**changes))


def test_other_contracts_read_as_they_did() -> None:
    contract = Contract(
        task="other", architecture="x", tolerance=Tolerance(absolute=0.0, relative=0.0)
    )

    assert contract.series is None


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"history": (8, 36, 1), "forecast": (8, 12)}, r"history: .* \(36, 2\), got \(36, 1\)"),
        ({"history": (8, 36, 2), "forecast": (8, 11)}, r"forecast: .* \(12,\), got \(11,\)"),
        ({"x": (8, 36, 2), "forecast": (8, 12)}, r"history: .* \(36, 2\), got None"),
    ],
    ids=["columns", "horizon", "name"],
)
def test_tensors_must_be_of_the_series(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Series.model_validate(SERIES).check_shapes(shapes)
