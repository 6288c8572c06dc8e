"""Export of forecasting runs."""

from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from weir.bundle.contract import PredictionInterval, Series, Tolerance
from weir.export.errors import ExportError
from weir.export.runs.provenance import data_name, describe_random, provenance_of
from weir.export.spec import ExportSpec, RunExport
from weir.training.errors import TrainingError
from weir.training.forecasting.experiment import load_model, load_test, window_of
from weir.training.forecasting.recipes import SeriesRecipe
from weir.training.run_directory import RunRecord, SeriesRecord, part_of

HISTORY, FORECAST = "history", "forecast"

_EXAMPLE_ROWS = 64
_TOLERANCE = 1e-5


def load(run: Path, record: RunRecord) -> RunExport:
    """Load the network with its scaling, and test rows, or random rows without the data."""
    try:
        histories = load_test(record).histories
    except TrainingError as error:
        described = describe_random(record, error)
        histories = _random_rows(
            part_of(record, SeriesRecord),
            window_of(part_of(record, SeriesRecipe), part_of(record, SeriesRecord)),
        )
    else:
        described = f"test rows of {data_name(record)}"
        rows = torch.linspace(0, len(histories) - 1, min(_EXAMPLE_ROWS, len(histories))).long()
        histories = histories[rows]
    return RunExport(load_model(run), {HISTORY: histories}, _spec(record, described))


def int8_settings(_run: Path, record: RunRecord, _max_drop: float) -> NoReturn:
    """Raise ExportError: a forecast has no accuracy to measure INT8 by."""
    raise ExportError(
        f"{record.recipe.name}: expected fp32 or fp16, got int8, which needs an accuracy; "
        "a forecast has none"
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
            lags=window_of(recipe, series),
            horizon=recipe.horizon,
            season=series.season,
            interval=None
            if series.interval is None
            else PredictionInterval.model_validate(series.interval.model_dump()),
        ),
        # The network computes in standard deviations, the graph returns values of the series.
        tolerance=Tolerance(absolute=_TOLERANCE * series.std[0], relative=_TOLERANCE),
        examples=examples,
        training=provenance_of(record),
        commit=record.commit,
    )
