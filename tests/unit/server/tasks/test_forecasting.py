"""`Forecast`: columns by name in, the values that follow out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.helpers import text_models
from tests.unit.server.conftest import HANG_S, Backend, Clock
from tests.unit.server.task_server import TaskServer
from weir.bundle.contract import PredictionInterval, Series
from weir.protocol import tasks_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
SALES, PRICE = [9.0, 1.0, 2.0, 3.0], [9.0, 0.25, 0.5, 0.75]


@pytest.fixture
def server(
    models: Path, open_backend: Callable[..., Backend], clock: Clock
) -> Iterator[TaskServer]:
    text_models.write_forecaster(models)
    text_models.write_classifier(models)
    server = TaskServer(open_backend(), clock, "Forecast", "forecaster")
    yield server
    server.pool.close()
    assert server.pool.join(HANG_S)


def of(*columns: tuple[str, list[float]], **fields: Any) -> pb.ForecastRequest:
    given = [pb.Column(name=name, values=values) for name, values in columns]
    return pb.ForecastRequest(**{"model_name": "forecaster", "columns": given, **fields})


def test_the_last_values_are_read_in_any_order_of_columns(server: TaskServer) -> None:
    answer = server.ask(of(("price", PRICE), ("sales", SALES), id="seven"), pb.ForecastResponse)

    assert (answer.model_name, answer.model_version, answer.id) == ("forecaster", "1", "seven")
    assert answer.name == "sales"
    assert list(answer.values) == [3.75, 1.0]


def test_horizon_of_the_request_bounds_the_values(server: TaskServer) -> None:
    answer = server.ask(of(("price", PRICE), ("sales", SALES), horizon=1), pb.ForecastResponse)

    assert list(answer.values) == [3.75]


@pytest.mark.parametrize("horizon", [0, 1], ids=["whole", "cut"])
def test_interval_is_added_to_the_values(
    horizon: int, models: Path, open_backend: Callable[..., Backend], clock: Clock
) -> None:
    interval = PredictionInterval(level=0.8, lower=[-0.5, -1.5], upper=[0.25, 1.0])
    text_models.write_forecaster(
        models, series=text_models.SERIES.model_copy(update={"interval": interval})
    )
    server = TaskServer(open_backend(), clock, "Forecast", "forecaster")

    answer = server.ask(
        of(("price", PRICE), ("sales", SALES), horizon=horizon), pb.ForecastResponse
    )
    server.pool.close()

    steps = horizon or 2
    assert server.pool.join(HANG_S)
    assert list(answer.values) == [3.75, 1.0][:steps]
    assert list(answer.lower) == [3.25, -0.5][:steps]
    assert list(answer.upper) == [4.0, 2.0][:steps]
    assert answer.level == 0.8


def test_relative_interval_grows_with_the_value(
    models: Path, open_backend: Callable[..., Backend], clock: Clock
) -> None:
    interval = PredictionInterval(level=0.8, lower=[-0.5] * 2, upper=[1.0] * 2, is_relative=True)
    text_models.write_forecaster(
        models, series=text_models.SERIES.model_copy(update={"interval": interval})
    )
    server = TaskServer(open_backend(), clock, "Forecast", "forecaster")

    answer = server.ask(of(("price", PRICE[1:]), ("sales", [-4.0, 2.0, 3.0])), pb.ForecastResponse)
    server.pool.close()

    assert server.pool.join(HANG_S)
    assert list(answer.values) == [3.75, -4.0]
    assert list(answer.lower) == [1.875, -6.0] and list(answer.upper) == [7.5, 0.0]


def test_model_without_an_interval_answers_none(server: TaskServer) -> None:
    answer = server.ask(of(("price", PRICE), ("sales", SALES)), pb.ForecastResponse)

    assert not answer.lower and not answer.upper and answer.level == 0


def test_columns_that_the_model_does_not_read_are_ignored(server: TaskServer) -> None:
    wanted = server.ask(of(("sales", SALES), ("price", PRICE)), pb.ForecastResponse)

    answer = server.ask(
        of(("month", [1.0]), ("sales", SALES), ("price", PRICE), ("month", [])), pb.ForecastResponse
    )

    assert answer == wanted


NAN, LARGE = float("nan"), 1e300
REFUSED = {
    "none": (of(), "columns: expected 'sales', 'price', got no 'sales'"),
    "missing": (of(("sales", SALES)), "columns: expected 'sales', 'price', got no 'price'"),
    "another": (
        of(("sales", SALES), ("rain", PRICE)),
        "columns: expected 'sales', 'price', got no 'price'",
    ),
    "nameless": (of(("", SALES)), "columns: expected 'sales', 'price', got one without a name"),
    "twice": (
        of(("sales", SALES), ("price", PRICE), ("sales", SALES)),
        "columns: expected 'sales' once, got it 2 times",
    ),
    "unequal": (
        of(("sales", SALES), ("price", PRICE[1:])),
        "columns: expected equally many values in each, got 4 of 'sales', 3 of 'price'",
    ),
    "few": (
        of(("sales", SALES[:2]), ("price", PRICE[:2])),
        "columns: expected 3 values or more, got 2",
    ),
    "nan": (
        of(("sales", SALES), ("price", [*PRICE[:2], NAN, 1.0])),
        "columns: 'price': expected finite 32-bit numbers, got nan at values[2]",
    ),
    "large": (
        of(("sales", [*SALES[:3], LARGE]), ("price", PRICE)),
        "columns: 'sales': expected finite 32-bit numbers, got 1e+300 at values[3]",
    ),
    "horizon": (
        of(("sales", SALES), ("price", PRICE), horizon=3),
        "horizon: expected at most 2, the model's own, got 3",
    ),
    "task": (
        of(("sales", SALES), model_name="classifier"),
        "model 'classifier': expected the task forecasting, got sequence-classification",
    ),
    "message": (b"\x0a\x0aforecaster\x22\x01\xff", "the message is no valid ForecastRequest"),
}


@pytest.mark.parametrize(("message", "details"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_request_is_refused(
    message: pb.ForecastRequest | bytes, details: str, server: TaskServer
) -> None:
    assert server.refuse(message) == (INVALID, details)


def test_non_finite_values_before_the_lags_are_ignored(server: TaskServer) -> None:
    answer = server.ask(of(("sales", [NAN, *SALES]), ("price", [NAN, *PRICE])), pb.ForecastResponse)

    assert list(answer.values) == [3.75, 1.0]


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (
            Series(target="a", lags=3, horizon=2),
            "series: input 'history': axis 2: expected 2, got 1",
        ),
        (
            text_models.SERIES.model_copy(update={"horizon": 3}),
            "series: expected an output 'forecast' of numbers [batch, 3], got (-1, 2)",
        ),
    ],
    ids=["columns", "horizon"],
)
def test_series_that_does_not_fit_its_graph_is_not_served(
    series: Series, reason: str, models: Path, open_backend: Callable[..., Backend]
) -> None:
    text_models.write_forecaster(models, series=series)

    assert open_backend().repository.registry.entry("forecaster", "").reason == reason
