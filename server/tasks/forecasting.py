"""Forecasting (`Forecast`): the recent values of a series in, the values that follow out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Series
from weir.protocol import tasks_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.protocol.request_decoder import parse_message
from weir.server.scheduling.request import InferRequest, Model
from weir.server.scheduling.served_model import ServedModel
from weir.server.tasks.task_call import Preprocess, TaskCall, infer_request, single_graph

Array = NDArray[Any]


def forecast(model: Model) -> Preprocess:
    """`Forecast` on a model; see `task_call.Task`."""
    graph = single_graph(model, "forecasting")
    series = graph.contract.series if graph.contract else None
    if series is None:
        raise InvalidRequest(f"model {model.name!r} forecasts no series: its bundle has no series")
    return partial(_preprocess, graph, series)


def _preprocess(model: ServedModel, series: Series, call: TaskCall) -> InferRequest:
    message = parse_message(pb.ForecastRequest, call.payload)
    if message.horizon > series.horizon:
        raise InvalidRequest(
            f"horizon: expected at most {series.horizon}, the model's own, got {message.horizon}"
        )
    encode = partial(_encode, model, series, message.id, message.horizon or series.horizon)
    history = _history(message.columns, series)
    return infer_request(call, model, {series.input: history[None]}, encode)


def _history(columns: Sequence[pb.Column], series: Series) -> Array:
    """The last values of the columns, in the model's order: (lags, columns)."""
    wanted = [series.target, *series.exogenous]
    sent = [column.name for column in columns]
    if sent == [""] and len(wanted) == 1:
        sent = wanted
    _check_names(sent, wanted)
    by_name = dict(zip(sent, columns, strict=True))
    counts = {name: len(by_name[name].values) for name in wanted}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise InvalidRequest(f"columns: expected equally many values in each, got {listed}")
    if counts[series.target] < series.lags:
        raise InvalidRequest(
            f"columns: expected {series.lags} values or more, got {counts[series.target]}"
        )
    history = np.empty((series.lags, len(wanted)), np.float32)
    for column, name in enumerate(wanted):
        history[:, column] = _last(name, by_name[name], series.lags)
    return history


def _last(name: str, column: pb.Column, lags: int) -> Array:
    """The last values of a column, as float32."""
    values = np.array(column.values[-lags:], np.float64)
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(narrow))
    if broken.size:
        position = len(column.values) - lags + int(broken[0])
        raise InvalidRequest(
            f"columns: {name!r}: expected finite 32-bit numbers, "
            f"got {values[broken[0]]:g} at values[{position}]"
        )
    return narrow


def _check_names(sent: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse columns that are missing or repeated; other columns of a table are ignored."""
    counts = Counter(sent)
    for name in wanted:
        if not counts[name]:
            listed = ", ".join(map(repr, wanted))
            found = "one without a name" if list(sent) == [""] else f"no {name!r}"
            raise InvalidRequest(f"columns: expected {listed}, got {found}")
        if counts[name] > 1:
            raise InvalidRequest(f"columns: expected {name!r} once, got it {counts[name]} times")


def _encode(
    model: ServedModel, series: Series, request_id: str, horizon: int, outputs: Mapping[str, Array]
) -> bytes:
    values = outputs[series.output][0, :horizon].tolist()
    response = pb.ForecastResponse(
        model_name=model.name,
        model_version=model.version,
        id=request_id,
        name=series.target,
        values=values,
    )
    if interval := series.interval:
        response.level = interval.level
        for field, offsets in ((response.lower, interval.lower), (response.upper, interval.upper)):
            field.extend(
                value + offset * (abs(value) if interval.is_relative else 1.0)
                for value, offset in zip(values, offsets, strict=False)  # of the horizon asked for
            )
    return model.encoder.checked(response.SerializeToString())
