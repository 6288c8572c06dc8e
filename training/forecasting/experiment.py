"""The forecasting experiment: windows of a series, network with scaling, and evaluation."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from weir.training.data.series import SeriesData, load_series
from weir.training.forecasting.evaluation import (
    AR_LAGS,
    fit_autoregression,
    naive_error,
    persist,
    score,
)
from weir.training.forecasting.figures import FORECAST, ForecastFigure, draw_forecast
from weir.training.forecasting.recipes import FED_BACK, SeriesRecipe
from weir.training.forecasting.windows import Parts, Windows, cut, divide_by_time
from weir.training.loop import Batch, Task
from weir.training.models.series import build_forecaster
from weir.training.reproducibility import Purpose, generator_for
from weir.training.run_directory import (
    Evaluation,
    RunRecord,
    SeriesRecord,
    SplitRecord,
    load_weights,
    part_of,
    read_record,
    require_same_data,
)

EVALUATION_ROWS = 1024
BASELINE = f"ar{AR_LAGS}"


@dataclass(frozen=True, slots=True)
class SeriesExperiment:
    """A recipe with its series in memory; see `weir.training.train.Experiment`.

    train, validation: windows of as many targets as the network outputs in training: 1 if it feeds
        its outputs back, else `horizon`. Validation uses the same loss as training.
    held_out: windows of `horizon` targets.
    """

    recipe: SeriesRecipe
    data: SeriesData
    parts: Parts
    train: Windows
    validation: Windows
    held_out: Windows
    record: SeriesRecord
    classes: tuple[str, ...] = ()

    @property
    def checksum(self) -> str:
        """SHA-256 over the file."""
        return self.data.checksum

    @property
    def split_checksums(self) -> SplitRecord:
        """The file's, as all parts come from it."""
        whole = self.data.checksum
        return SplitRecord(train=whole, validation=whole, test=whole)

    def build(self) -> nn.Module:
        """Build the network."""
        return build_network(self.recipe, self.record)

    def make_task(self, device: torch.device, *, mixed: bool) -> Task:
        """Return the batches, on the device, and the loss."""
        train, validation = self.train.to(device), self.validation.to(device)

        def training(epoch: int, first_step: int) -> Iterator[Batch]:
            generator = generator_for(self.recipe.seed, Purpose.ORDER, epoch)
            order = torch.randperm(len(train), generator=generator).to(device)
            for rows in torch.split(order, self.recipe.batch_size)[first_step:]:
                yield Batch((train.histories[rows],), train.targets[rows])

        return Task(
            steps=math.ceil(len(train) / self.recipe.batch_size),
            training=training,
            validation=lambda: in_order(validation),
            loss=functools.partial(scaled_error, std=self.record.std[0]),
            mixed=mixed,
            has_classes=False,
            rows_are="windows",
        )

    def write_files(self, out: Path) -> None:
        """Write nothing: the weights contain the scaling."""

    def test(self, network: nn.Module, device: torch.device, out: Path) -> Evaluation:
        """Forecast the test part from each time step, compare with the baselines, and draw."""
        horizon = self.recipe.horizon
        own = self.data.values[: self.parts.train_end, 0]
        truth = self.held_out.targets.double().numpy()
        # Cut again: the baselines may read further back than the network.
        first, end = self.parts.validation_end, len(self.data.values)
        windows = cut(self.data.values, first, end, steps=horizon, window=AR_LAGS)
        before = windows.histories[:, :, 0].double().numpy()
        forecasts = {
            "": forecast(network, self.held_out.to(device)),
            BASELINE: fit_autoregression(own, AR_LAGS).forecast(before, horizon),
            "persistence": persist(before, horizon),
        }
        metrics = score(forecasts, truth, naive_error(own))
        figure = ForecastFigure(
            self.recipe.name, self.data, self.parts.validation_end, truth, forecasts
        )
        draw_forecast(figure, out / FORECAST)
        return Evaluation(accuracy=None, confusions=None, metrics=metrics)


def prepare(recipe: SeriesRecipe) -> SeriesExperiment:
    """Read the series and cut it into windows; the training part decides the scaling."""
    data = load_series(recipe.data, recipe.value, recipe.exogenous, decimal=recipe.decimal)
    parts = divide_by_time(data, recipe, least_lags=AR_LAGS)
    train = data.values[: parts.train_end]
    steps = 1 if recipe.network.kind in FED_BACK else recipe.horizon
    make = functools.partial(cut, data.values, window=recipe.network.window)
    return SeriesExperiment(
        recipe=recipe,
        data=data,
        parts=parts,
        train=make(0, parts.train_end, steps=steps),
        validation=make(parts.train_end, parts.validation_end, steps=steps),
        held_out=make(parts.validation_end, len(data.values), steps=recipe.horizon),
        record=SeriesRecord(
            columns=list(data.columns),
            mean=train.mean(axis=0).tolist(),
            std=train.std(axis=0).tolist(),
        ),
    )


def build_network(recipe: SeriesRecipe, record: SeriesRecord) -> nn.Module:
    """Build the network with fresh weights from torch's global generator."""
    return build_forecaster(
        mean=record.mean, std=record.std, horizon=recipe.horizon, **recipe.network.model_dump()
    )


def scaled_error(forecasts: Tensor, truth: Tensor, *, std: float) -> Tensor:
    """Mean squared error of forecasts (B, steps or more), divided by the training variance."""
    return functional.mse_loss(forecasts[:, : truth.shape[1]] / std, truth / std)


def in_order(windows: Windows) -> Iterator[Batch]:
    """Yield each row once, the earliest first."""
    for histories, targets in zip(
        torch.split(windows.histories, EVALUATION_ROWS),
        torch.split(windows.targets, EVALUATION_ROWS),
        strict=True,
    ):
        yield Batch((histories,), targets)


@torch.inference_mode()
def forecast(network: nn.Module, windows: Windows) -> np.typing.NDArray[np.float64]:
    """Forecast all rows in eval mode: (B, horizon)."""
    network.eval()
    ahead = [network(*batch.inputs) for batch in in_order(windows)]
    return np.asarray(torch.cat(ahead).double().cpu().numpy())


def load_model(run: Path) -> nn.Module:
    """Load a finished run's network, in eval mode, on the CPU; errors as `load_weights`."""
    record = read_record(run)
    return load_weights(
        run, build_network(part_of(record, SeriesRecipe), part_of(record, SeriesRecord))
    )


def load_test(record: RunRecord) -> Windows:
    """Load the test rows of a finished run; errors as `require_same_data`."""
    experiment = prepare(part_of(record, SeriesRecipe))
    require_same_data(record, experiment.checksum)
    return experiment.held_out
