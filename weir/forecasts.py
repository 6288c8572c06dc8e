"""The held-out part of a series as requests, and how far a server's forecasts of it are off.

Needs the extra `train`, so it is imported where it is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.recipes import make_recipe
from training.series.problem import prepare
from training.series.recipe import SeriesRecipe
from training.series.scores import naive_error, score
from weir.errors import WeirError
from weir.questions import Question

if TYPE_CHECKING:
    from bundle.contract import Contract
    from bundle.series import Series


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Requests in the order of time, and what forecasts are measured by.

    truth: (rows, horizon), in the series' own unit.
    scale: of MASE, from the part that was trained on.
    """

    questions: list[Question]
    truth: NDArray[np.float64]
    scale: float

    def measure(self, forecasts: Sequence[NDArray[Any]]) -> dict[str, float]:
        """RMSE and MASE of the forecasts (rows, horizon) of all requests, named as training names them.

        Raises:
            WeirError: forecasts of another shape.
        """
        found = np.concatenate(forecasts).astype(np.float64)
        if found.shape != self.truth.shape:
            raise WeirError(f"expected forecasts of shape {self.truth.shape}, got {found.shape}")
        return score({"": found}, self.truth, self.scale)


def hold_out(data: str, series: "Series", rows: int) -> HeldOut:
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
    return HeldOut(questions, truth, naive_error(problem.data.values[: problem.parts.train_end, 0]))


def recorded(contract: "Contract", names: Mapping[str, float]) -> dict[str, float]:
    """What training measured under these names; nothing of weights from elsewhere."""
    metrics = contract.training.metrics if contract.training else {}
    return {name: metrics[f"test_{name}"] for name in names if f"test_{name}" in metrics}
