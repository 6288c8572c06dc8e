"""The recipes of series: for each a function of the data set, which gives what differs from the defaults."""

from collections.abc import Callable

from weir.training.data.series import SERIES_SETS, SUNSPOT_COLUMN, SUNSPOTS
from weir.training.recipe import Setting


def _recipe(
    data: str, network: dict[str, Setting], learning_rate: float, epochs: int
) -> dict[str, Setting]:
    name = str(network["kind"])
    return {
        "task": "forecasting",
        "architecture": name if name in {"ar", "narx"} else f"series-{name}",
        "network": network,
        "value": SUNSPOT_COLUMN if data == SUNSPOTS else None,
        "optimizer": {"kind": "adamw", "learning_rate": learning_rate, "weight_decay": 1e-2},
        "epochs": epochs,
        "batch_size": 64,
        "patience": 100,
        "average_decay": 0.98,
        # Numbers of 8 bits are no measurements; and a step's matrices are small.
        "mixed_precision": False,
        "cpu_threads": 1,
    }


def ar(data: str) -> dict[str, Setting]:
    """A linear map of the last values. It learns by the same loop as the others, so validation may stop it before the fit of least squares."""
    return _recipe(data, {"kind": "ar", "lags": 36}, 1e-2, 50)


def narx(data: str) -> dict[str, Setting]:
    """A perceptron of the last values, with a linear map beside it."""
    network: dict[str, Setting] = {"kind": "narx", "lags": 36, "hidden": 32, "dropout": 0.3}
    return _recipe(data, network, 2e-3, 50)


def _cells(kind: str) -> Callable[[str], dict[str, Setting]]:
    def of_cells(data: str) -> dict[str, Setting]:
        network: dict[str, Setting] = {"kind": kind, "lags": 48, "hidden": 32, "dropout": 0.3}
        return _recipe(data, network, 4e-3, 25)

    return of_cells


RECIPES: dict[str, Callable[[str], dict[str, Setting]]] = {
    "ar": ar,
    "narx": narx,
    "series-rnn": _cells("rnn"),
    "series-gru": _cells("gru"),
    "series-lstm": _cells("lstm"),
}
MADE_FOR = dict.fromkeys(RECIPES, (*SERIES_SETS, "PATH"))
"""The data sets of each recipe, its default first; PATH stands for a file of yours."""


def _quick(lags: int, epochs: int) -> dict[str, Setting]:
    return {"epochs": epochs, "network": {"lags": lags}}


QUICK: dict[str, dict[str, Setting]] = {
    name: _quick(24, 10 if name in {"ar", "narx"} else 4) for name in RECIPES
}
"""What the quick form changes: seconds on one core, for tests and the demo."""
