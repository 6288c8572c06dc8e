"""What of a run on a series goes into a bundle."""

from pathlib import Path

import torch
from torch import Tensor

from weir.bundle.contract import Series, Tolerance
from weir.export.errors import ExportError
from weir.export.int8_static import StaticInt8
from weir.export.provenance import name_of, provenance_of, random_examples
from weir.export.spec import ExportSpec, RunExport
from weir.training.errors import TrainingError
from weir.training.forecasting.experiment import load_model, load_test
from weir.training.forecasting.recipes import SeriesRecipe
from weir.training.run_directory import RunRecord, SeriesRecord, part_of

HISTORY, FORECAST = "history", "forecast"

_EXAMPLE_ROWS = 64
_TOLERANCE = 1e-5


def read(run: Path, record: RunRecord) -> RunExport:
    """The network, which scales by itself, and test rows; random ones where they cannot be had."""
    try:
        histories = load_test(record).histories
    except TrainingError as error:
        described = random_examples(record, error)
        histories = _random_rows(
            part_of(record, SeriesRecord), part_of(record, SeriesRecipe).network.window
        )
    else:
        described = f"test rows of {name_of(record)}"
        rows = torch.linspace(0, len(histories) - 1, min(_EXAMPLE_ROWS, len(histories))).long()
        histories = histories[rows]
    return RunExport(load_model(run), {HISTORY: histories}, _spec(record, described))


def fitting(_run: Path, record: RunRecord, _max_drop: float) -> StaticInt8:
    """Nothing to judge INT8 by.

    Raises:
        ExportError: always.
    """
    raise ExportError(
        f"{record.recipe.name}: int8 is judged by the answers that are right, and a forecast is never just right"
    )


def _random_rows(series: SeriesRecord, lags: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(_EXAMPLE_ROWS, lags, len(series.columns), generator=generator)
    return rows * torch.tensor(series.std) + torch.tensor(series.mean)


def _spec(record: RunRecord, examples: str) -> ExportSpec:
    recipe, series = part_of(record, SeriesRecipe), part_of(record, SeriesRecord)
    return ExportSpec(
        task="forecasting",
        architecture=record.architecture,
        outputs=[FORECAST],
        series=Series(
            target=series.columns[0],
            exogenous=series.columns[1:],
            lags=recipe.network.window,
            horizon=recipe.horizon,
        ),
        # The network's own numbers are in units of the deviation; those of the graph in the series'.
        tolerance=Tolerance(absolute=_TOLERANCE * series.std[0], relative=_TOLERANCE),
        examples=examples,
        training=provenance_of(record),
        commit=record.commit,
    )
