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
from weir.training.errors import DataError
from weir.training.forecasting.evaluation import (
    AR_LAGS,
    COVERAGE,
    baseline_names,
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
        season: of the baseline; 0: none.
    """

    requests: list[LabelledRequest]
    origin: Origin
    series: "Series"
    truth: NDArray[np.float64]
    baselines: Mapping[str, NDArray[np.float64]]
    scale: float
    season: int

    unit: ClassVar[str] = "forecasts"
    remarks: ClassVar[Sequence[str]] = ()

    @property
    def meanings(self) -> dict[str, str]:
        """What each measure says, by its name."""
        horizon = self.series.horizon
        whole = f"over {horizon} step{'s' * (horizon > 1)} ahead"
        names = {"": whole, **{f"_{step}": f"{step} ahead" for step in (1, horizon)}}
        shown = {
            f"{measure}{lead}": text for measure in ("rmse", "mase") for lead, text in names.items()
        }
        for key, baseline in baseline_names(self.season).items():
            shown |= {f"{key}_{measure}": f"baseline {baseline}" for measure in ("rmse", "mase")}
        if self.series.interval is not None:
            level = f"{self.series.interval.level:.0%}"
            shown[COVERAGE] = f"share of the values within the {level} interval"
        return shown

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
    column: str | None = None,
    *,
    training: "Provenance | None" = None,
    decimal: DecimalMark | None = None,
) -> SeriesSet:
    """The test part of a recipe on `data`, `rows` per request; TrainingError if unreadable.

    Args:
        column: the column of `data` that is the series; None: the one of the model's name.
        training: what the bundle or the server says of the training; None: nothing.
        decimal: the decimal mark of a CSV file that leaves it open.
    """
    exogenous, value = tuple(series.exogenous), column or series.target
    recipe = make_recipe("ar", data, value=value, exogenous=exogenous, horizon=series.horizon)
    if not isinstance(recipe, SeriesRecipe):
        raise TypeError(recipe)
    try:
        read = load_series(data, value, exogenous, decimal=decimal)
    except DataError as error:
        if column is not None or f"expected a column {value!r}, got none" not in str(error):
            raise
        hint = "if another column is that series, say --column NAME"
        raise DataError(f"{error}; {hint}") from error
    own, horizon = read.values[:, 0], series.horizon
    parts = divide_by_time(len(own), recipe)
    known = own[: parts.baseline_end]
    # Bundles of before name no season.
    season = find_season(known) if series.season is None else series.season
    window = max(series.lags, AR_LAGS)
    try:
        require_rows(read, parts, window=window, horizon=horizon, season=season)
    except DataError as error:
        raise DataError(
            f"{error}; the evaluation fits AR({AR_LAGS}) as the training does"
        ) from error
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
    return SeriesSet(requests, origin, series, truth, baselines, naive_error(known), season)


def _origin(text: str, checksum: str, training: "Provenance | None") -> Origin:
    """The end of the series, and whether training tested on it."""
    if training is None:
        return Origin(f"{text}; what the model was trained on is not known")
    if checksum == training.data_checksum:
        return Origin(f"{text}, which training held out", "test")
    return Origin(f"{text}, which is not a file of the bundle's training")
