"""Series on the wire: columns → one call of `Forecast`, and its answer."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from weir.client.errors import UsageError
from weir.client.pictures import SERVICE
from weir.client.results import Forecast
from weir.client.wire import Call, Version, parse
from weir.protocol.weir.v1 import tasks_pb2 as pb

Columns: TypeAlias = Mapping[str, ArrayLike] | ArrayLike
"""Moments, the oldest first: by the names of columns, or those of a model's one column."""

_MAX_HORIZON = 2**32 - 1


def forecast(model: str, columns: Columns, *, horizon: int, version: Version) -> Call[Forecast]:
    """The call for the values that follow.

    Raises:
        UsageError: `horizon` is no number of values, or a column is not a row of numbers.
    """
    if not 0 <= horizon <= _MAX_HORIZON:
        raise UsageError(f"horizon: expected 0 to {_MAX_HORIZON}, got {horizon}")
    named = columns if isinstance(columns, Mapping) else {"": columns}
    request = pb.ForecastRequest(
        model_name=model,
        model_version=str(version),
        columns=[_column(name, values) for name, values in named.items()],
        horizon=horizon,
    )

    def read(body: bytes) -> Forecast:
        answer = parse(pb.ForecastResponse, body)
        return Forecast(answer.name, np.array(answer.values, np.float64))

    return Call(f"/{SERVICE}/Forecast", request.SerializeToString(), read)


def _column(name: str, values: ArrayLike) -> pb.Column:
    where = f"column {name!r}" if name else "series"
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: expected numbers: {error}") from error
    if array.ndim != 1:
        raise UsageError(f"{where}: expected a row of numbers, got shape {array.shape}")
    return pb.Column(name=name, values=array.tolist())
