"""`Forecast`: the last moments of a series in, the values that follow out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.series import Series
from weir.protocol import tasks_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.protocol.request_decoder import check_id, parse_message
from weir.server.scheduling.served_model import ServedModel
from weir.server.tasks.task_call import Material, Prepared, TaskCall
from weir.server.tasks.text import check_task

Array = NDArray[Any]


def _series(model: ServedModel) -> Series:
    check_task(model, "forecasting")
    series = model.contract.series if model.contract else None
    if series is None:
        raise InvalidRequest(f"model {model.name!r}: its bundle does not say which series it reads")
    return series


def _check(model: ServedModel) -> None:
    _series(model)


def _prepare(material: Material[ServedModel]) -> Prepared:
    message, model = parse_message(pb.ForecastRequest, material.payload), material.model
    series = _series(model)
    check_id(message.id)
    if message.horizon > series.horizon:
        raise InvalidRequest(
            f"horizon: expected at most {series.horizon}, as far as the model sees, "
            f"got {message.horizon}"
        )
    return Prepared(
        inputs={series.input: _history(message.columns, series)[None]},
        datatype="FP32",
        encode=partial(_encode, model, series, message.id, message.horizon or series.horizon),
    )


def _history(columns: Sequence[pb.Column], series: Series) -> Array:
    """The last moments of the columns in the model's order: (lags, columns)."""
    wanted = [series.target, *series.exogenous]
    sent = [column.name for column in columns]
    if sent == [""] and len(wanted) == 1:
        sent = wanted
    _check_names(sent, wanted)
    by_name = dict(zip(sent, columns, strict=True))
    counts = {name: len(by_name[name].values) for name in wanted}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise InvalidRequest(f"columns: expected as many moments in each, got {listed}")
    if counts[series.target] < series.lags:
        raise InvalidRequest(
            f"columns: expected {series.lags} moments or more, got {counts[series.target]}"
        )
    history = np.empty((series.lags, len(wanted)), np.float32)
    for place, name in enumerate(wanted):
        history[:, place] = _last(name, by_name[name], series.lags)
    return history


def _last(name: str, column: pb.Column, lags: int) -> Array:
    """The last values of a column, in the precision that the model takes."""
    values = np.array(column.values[-lags:], np.float64)
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(narrow))
    if broken.size:
        place = len(column.values) - lags + int(broken[0])
        raise InvalidRequest(
            f"columns: {name!r}: expected finite numbers of 32 bits, "
            f"got {values[broken[0]]:g} at values[{place}]"
        )
    return narrow


def _check_names(sent: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse columns that are missing or sent twice; a table may have others, which are passed over."""
    counts = Counter(sent)
    for name in wanted:
        if not counts[name]:
            listed = ", ".join(map(repr, wanted))
            raise InvalidRequest(f"columns: expected {listed}, got no {name!r}")
        if counts[name] > 1:
            raise InvalidRequest(f"columns: expected {name!r} once, got it {counts[name]} times")


def _encode(
    model: ServedModel,
    series: Series,
    request_id: str,
    horizon: int,
    outputs: Mapping[str, Array],
) -> bytes:
    answer = pb.ForecastResponse(
        model_name=model.name,
        model_version=model.version,
        id=request_id,
        name=series.target,
        values=outputs[series.output][0, :horizon].tolist(),
    )
    return model.encoder.checked(answer)


FORECAST = TaskCall(_check, _prepare)
