"""Test set of a series: its held-out part as requests, and the errors of a server's forecasts.

Needs the extra `train`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Tolerance
from weir.bundle.number_format import DecimalMark
from weir.client.errors import WeirError
from weir.evaluate.test_set import LabelledRequest, Origin
from weir.training.data.series import load_series
from weir.training.forecasting.evaluation import (
    AR_LAGS,
    COVERAGE,
    forecast_baselines,
    naive_error,
    score,
)
from weir.training.forecasting.intervals import share_within
from weir.training.forecasting.recipes import SeriesRecipe
from weir.training.forecasting.season import find_season
from weir.training.forecasting.windows import cut, divide_by_time, require_rows
from weir.training.recipes import make_recipe

if TYPE_CHECKING:
    from weir.bundle.contract import Provenance, Series
    from weir.client.results import Answer


@dataclass(frozen=True, slots=True)
class SeriesSet:
    """Requests in time order, and the true values; other attributes as of `ClassifiedSet`.

    The rows are the end of any file, since its beginning scales MASE.

    Attributes:
        series: of the bundle.
        truth: (rows, horizon), in the series' unit.
        baselines: forecasts (rows, horizon) by name.
        scale: of MASE, from the training part.
    """

    requests: list[LabelledRequest]
    origin: Origin
    series: "Series"
    truth: NDArray[np.float64]
    baselines: Mapping[str, NDArray[np.float64]]
    scale: float

    unit: ClassVar[str] = "forecasts"
    remarks: ClassVar[Sequence[str]] = ()

    @property
    def tolerance(self) -> Tolerance:
        """PyTorch and ONNX Runtime differ in the last digits of FP32."""
        return Tolerance(absolute=0.0, relative=1e-4)

    def measure(self, answers: Sequence["Answer"]) -> dict[str, float]:
        """RMSE and MASE of all forecasts, and those of the baselines over the whole horizon.

        With an interval, the share of the values that it holds. WeirError for forecasts of another
        shape.
        """
        output = self.series.output
        found = np.concatenate([answer[output] for answer in answers]).astype(np.float64)
        if found.shape != self.truth.shape:
            raise WeirError(f"expected forecasts of shape {self.truth.shape}, got {found.shape}")
        measured = score({"": found}, self.truth, self.scale)
        beside = score(self.baselines, self.truth, self.scale)
        measured |= {name: beside[name] for name in beside if name.endswith(("_rmse", "_mase"))}
        if self.series.interval is not None:
            measured[COVERAGE] = share_within(found, self.truth, self.series.interval)
        return measured


def hold_out(
    data: str,
    series: "Series",
    rows: int,
    *,
    training: "Provenance | None" = None,
    decimal: DecimalMark | None = None,
) -> SeriesSet:
    """The test part of a recipe on `data`, `rows` per request; TrainingError if unreadable.

    Args:
        training: what the bundle or the server says of the training; None: nothing.
        decimal: the decimal mark of a CSV file that leaves it open.
    """
    columns = series.exogenous
    recipe = make_recipe(
        "ar", data, value=series.target, exogenous=tuple(columns), horizon=series.horizon
    )
    if not isinstance(recipe, SeriesRecipe):
        raise TypeError(recipe)
    read = load_series(data, series.target, columns, decimal=decimal)
    own, horizon = read.values[:, 0], series.horizon
    parts = divide_by_time(len(own), recipe)
    known = own[: parts.baseline_end]
    # Bundles of before name no season.
    season = find_season(known) if series.season is None else series.season
    require_rows(read, parts, window=max(series.lags, AR_LAGS), horizon=horizon, season=season)
    held_out = cut(read.values, parts.validation_end, len(own), steps=horizon, window=series.lags)
    histories, truth = held_out.histories.numpy(), held_out.targets.double().numpy()
    requests = [
        LabelledRequest(
            {series.input: histories[first : first + rows]}, truth[first : first + rows]
        )
        for first in range(0, len(truth), rows)
    ]
    baselines = forecast_baselines(own, parts, horizon=horizon, season=season)
    text = f"the last {recipe.test_share:.0%} of {data}"
    origin = _origin(text, read.checksum, training)
    return SeriesSet(requests, origin, series, truth, baselines, naive_error(known))


def _origin(text: str, checksum: str, training: "Provenance | None") -> Origin:
    """The end of the series, and whether training tested on it."""
    if training is None:
        return Origin(f"{text}; what the model was trained on is not known")
    if checksum == training.data_checksum:
        return Origin(f"{text}, which training held out", "test")
    return Origin(f"{text}, which is not a file of the bundle's training")
