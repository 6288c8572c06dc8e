"""The held-out part of a series as requests, and how far a server's forecasts of it are off.

Needs the extra `train`, so it is imported where it is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Tolerance
from weir.client.errors import WeirError
from weir.evaluate.questions import Question
from weir.training.forecasting.evaluation import naive_error, score
from weir.training.forecasting.experiment import prepare
from weir.training.forecasting.recipes import SeriesRecipe
from weir.training.recipes import make_recipe

if TYPE_CHECKING:
    from weir.bundle.series import Series
    from weir.client.results import Answer


@dataclass(frozen=True, slots=True)
class SeriesTest:
    """Requests in the order of time, and what forecasts are measured by.

    output: the model's, that holds them.
    truth: (rows, horizon), in the series' own unit.
    scale: of MASE, from the part that was trained on.
    why, is_other: as `asked.Asked` says; of any file the end is asked, since the beginning scales MASE.
    """

    questions: list[Question]
    why: str
    output: str
    truth: NDArray[np.float64]
    scale: float
    is_other: bool = False

    @property
    def tolerance(self) -> Tolerance:
        """PyTorch and ONNX Runtime differ in the last digits of FP32."""
        return Tolerance(absolute=0.0, relative=1e-4)

    def measure(self, answers: Sequence["Answer"]) -> dict[str, float]:
        """RMSE and MASE of the forecasts (rows, horizon) of all requests, named as training names them.

        Raises:
            WeirError: forecasts of another shape.
        """
        found = np.concatenate([answer[self.output] for answer in answers]).astype(np.float64)
        if found.shape != self.truth.shape:
            raise WeirError(f"expected forecasts of shape {self.truth.shape}, got {found.shape}")
        return score({"": found}, self.truth, self.scale)


def hold_out(data: str, series: "Series", rows: int) -> SeriesTest:
    """The part that recipes test on, by their own shares, so many rows a request.

    Raises:
        TrainingError: the data cannot be read, or lack a column.
    """
    recipe = make_recipe(
        "ar",
        data,
        value=series.target,
        exogenous=tuple(series.exogenous),
        horizon=series.horizon,
        network={"lags": series.lags},
    )
    if not isinstance(recipe, SeriesRecipe):
        raise TypeError(recipe)
    problem = prepare(recipe)
    histories, truth = problem.held_out.histories.numpy(), problem.held_out.targets.double().numpy()
    questions = [
        Question({series.input: histories[first : first + rows]}, truth[first : first + rows])
        for first in range(0, len(truth), rows)
    ]
    scale = naive_error(problem.data.values[: problem.parts.train_end, 0])
    why = f"the end of {data}, as recipes divide it"
    return SeriesTest(questions, why, series.output, truth, scale)
