"""Test set of a series: its held-out part as requests, and the errors of a server's forecasts.

Needs the extra `train`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Tolerance
from weir.bundle.number_format import DecimalMark
from weir.client.errors import WeirError
from weir.evaluate.test_set import LabelledRequest, Origin
from weir.training.forecasting.evaluation import naive_error, score
from weir.training.forecasting.experiment import prepare
from weir.training.forecasting.recipes import SeriesRecipe
from weir.training.recipes import make_recipe

if TYPE_CHECKING:
    from weir.bundle.contract import Provenance, Series
    from weir.client.results import Answer


@dataclass(frozen=True, slots=True)
class SeriesSet:
    """Requests in time order, and the true values; other attributes as of `ClassifiedSet`.

    The rows are the end of any file, since its beginning scales MASE.

    Attributes:
        output: the model's output that holds the forecasts.
        truth: (rows, horizon), in the series' unit.
        scale: of MASE, from the training part.
    """

    requests: list[LabelledRequest]
    origin: Origin
    output: str
    truth: NDArray[np.float64]
    scale: float

    unit: ClassVar[str] = "forecasts"
    remarks: ClassVar[Sequence[str]] = ()

    @property
    def tolerance(self) -> Tolerance:
        """PyTorch and ONNX Runtime differ in the last digits of FP32."""
        return Tolerance(absolute=0.0, relative=1e-4)

    def measure(self, answers: Sequence["Answer"]) -> dict[str, float]:
        """RMSE and MASE of all forecasts; WeirError for forecasts of another shape."""
        found = np.concatenate([answer[self.output] for answer in answers]).astype(np.float64)
        if found.shape != self.truth.shape:
            raise WeirError(f"expected forecasts of shape {self.truth.shape}, got {found.shape}")
        return score({"": found}, self.truth, self.scale)


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
    recipe = make_recipe(
        "ar",
        data,
        value=series.target,
        exogenous=tuple(series.exogenous),
        horizon=series.horizon,
        decimal=decimal,
        network={"lags": series.lags},
    )
    if not isinstance(recipe, SeriesRecipe):
        raise TypeError(recipe)
    problem = prepare(recipe)
    histories, truth = problem.held_out.histories.numpy(), problem.held_out.targets.double().numpy()
    requests = [
        LabelledRequest(
            {series.input: histories[first : first + rows]}, truth[first : first + rows]
        )
        for first in range(0, len(truth), rows)
    ]
    scale = naive_error(problem.data.values[: problem.parts.train_end, 0])
    text = f"the last {recipe.test_share:.0%} of {data}"
    origin = _origin(text, problem.data.checksum, training)
    return SeriesSet(requests, origin, series.output, truth, scale)


def _origin(text: str, checksum: str, training: "Provenance | None") -> Origin:
    """The end of the series, and whether training tested on it."""
    if training is None:
        return Origin(f"{text}; what the model was trained on is not known")
    if checksum == training.data_checksum:
        return Origin(f"{text}, which training held out", "test")
    return Origin(f"{text}, which is not a file of the bundle's training")
