"""The forecasting experiment: windows of a series, network with scaling, and evaluation."""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from weir.training.data.series import SeriesData, load_series
from weir.training.errors import RunError
from weir.training.forecasting.combination import Combination, choose_lags, combine, unroll
from weir.training.forecasting.evaluation import (
    AR_LAGS,
    COVERAGE,
    baseline_names,
    forecast_baselines,
    naive_error,
    score,
)
from weir.training.forecasting.figures import FORECAST, ForecastFigure, draw_forecast
from weir.training.forecasting.intervals import LEAST_ERRORS, bounds, measure_interval, share_within
from weir.training.forecasting.recipes import FED_BACK, SeriesRecipe
from weir.training.forecasting.season import find_season
from weir.training.forecasting.windows import Parts, Windows, cut, divide_by_time, require_rows
from weir.training.loop import Batch, Task
from weir.training.models.series import Forecaster, build_forecaster
from weir.training.reproducibility import Purpose, generator_for
from weir.training.run_directory import (
    Evaluation,
    IntervalRecord,
    RunRecord,
    SeriesRecord,
    SplitRecord,
    load_weights,
    part_of,
    read_record,
    require_same_data,
)

EVALUATION_ROWS = 1024
_MOST_LAGS_FED_BACK, _MOST_LAGS = 36, 48
"""Lags of the largest candidate without a season."""
_FLOOR = 0.1
"""Smaller parts of the smallest training value count as this part, where logarithms are read."""
_MOSTLY = 0.5
"""With a larger share of differences in its start, a network reads no level."""
_SHARES = (0.0, 0.5, 1.0)
_HANDICAP = 0.3
"""Trained weights must lower the validation error by this share, divided by the number of horizons
in the validation part: few of them choose the epoch by luck."""


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
    combination: Combination | None
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

    def build(self) -> Forecaster:
        """Build the network; it begins as the combination of linear forecasts, if there is one."""
        network = build_network(self.recipe, self.record)
        if self.combination is not None:
            self._begin(network, self.combination)
        return network

    def _begin(self, network: Forecaster, combination: Combination) -> None:
        own = self.data.values[: self.parts.train_end, 0]
        if combination.is_logarithm:
            logarithms = np.log(own)
            network.mean[0], network.std[0] = float(logarithms.mean()), float(logarithms.std())
            network.floor.fill_(_FLOOR * float(own.min()))
        unrolled = unroll(combination.regression, self.recipe.horizon)
        network.begin_as(*(torch.from_numpy(each).float() for each in unrolled))

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
        own, season = self.data.values[:, 0], self.record.season or 0
        truth = self.held_out.targets.double().numpy()
        found = forecast(network, self.held_out.to(device))
        baselines = forecast_baselines(own, self.parts, horizon=self.recipe.horizon, season=season)
        forecasts = {"": found, **baselines}
        metrics = score(forecasts, truth, naive_error(own[: self.parts.baseline_end]))
        interval = self.record.interval
        if interval is not None:
            metrics[COVERAGE] = share_within(found, truth, interval)
        figure = ForecastFigure(
            self.recipe.name,
            self.data,
            self.parts.validation_end,
            truth,
            forecasts,
            baseline_names(season),
            bounds=None if interval is None else bounds(found, interval),
        )
        draw_forecast(figure, out / FORECAST)
        return Evaluation(accuracy=None, confusions=None, metrics=metrics, notes=self._notes())

    def settle(self, network: nn.Module, device: torch.device) -> "SeriesExperiment":
        """Mix the trained weights with the first ones, and measure the interval.

        The validation part chooses the mixture: a few windows also chose the epoch, so that the
        trained weights may fit them better than the series. Returns the experiment with its record.
        """
        share = 1.0
        if self.combination is not None:
            share = self._mix(network, device)
        network.eval()
        interval = self._measure_interval(network, device)
        record = self.record.model_copy(update={"interval": interval, "trained_share": share})
        return replace(self, record=record)

    def _mix(self, network: nn.Module, device: torch.device) -> float:
        torch.manual_seed(self.recipe.seed)
        first = self.build().to(device).state_dict()
        trained = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        windows = self.validation.to(device)
        truth = self.validation.targets.double().numpy()
        horizons = (self.parts.validation_end - self.parts.train_end) / self.recipe.horizon
        best, chosen = math.inf, 1.0
        for share in _SHARES:
            network.load_state_dict(_between(first, trained, share))
            error = math.sqrt(np.square(forecast(network, windows) - truth).mean())
            error *= 1.0 + _HANDICAP * share / horizons
            if error < best:
                best, chosen = error, share
        network.load_state_dict(_between(first, trained, chosen))
        return chosen

    def _measure_interval(self, network: nn.Module, device: torch.device) -> IntervalRecord | None:
        """Measure it by the values of the validation part, each forecast 1 to `horizon` ahead."""
        values, horizon = self.data.values, self.recipe.horizon
        begin, end = self.parts.train_end, self.parts.validation_end
        window = self.held_out.histories.shape[1]
        # The first windows begin in the training part, the last ones end in the test part: only
        # their values in the validation part are compared.
        windows = cut(
            np.concatenate([values[:end], np.repeat(values[end - 1 : end], horizon - 1, axis=0)]),
            begin - horizon + 1,
            end + horizon - 1,
            steps=horizon,
            window=window,
        )
        found, truth = forecast(network, windows.to(device)), windows.targets.double().numpy()
        first = max(begin - horizon + 1, window)
        by_step = [
            slice(max(begin - first - step, 0), end - first - step) for step in range(horizon)
        ]
        return measure_interval(
            [found[rows, step] for step, rows in enumerate(by_step)],
            [truth[rows, step] for step, rows in enumerate(by_step)],
            is_relative=self.record.is_logarithm,
        )

    def _notes(self) -> dict[str, str]:
        record = self.record
        notes = {"season": f"{record.season} steps" if record.season else "none"}
        if self.recipe.season is None:
            notes["season"] += ", by the training part"
        if record.interval is None:
            rows = self.parts.validation_end - self.parts.train_end
            notes["interval"] = (
                f"none: expected {LEAST_ERRORS} or more rows to validate on, got {rows}"
            )
        if record.trained_share < 1.0:
            notes["weights"] = (
                "half-way between the linear forecast that training began with and its result"
                if record.trained_share
                else "the linear forecast that training began with"
            ) + ", which was better on the validation rows"
        if self.recipe.exogenous and not record.trained_share:
            # It reads the past of the value alone.
            notes["exogenous columns"] = "of no use: the linear forecast does not read them"
        return notes


def _between(
    first: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """The weights at `share` of the way from the first to the trained ones."""
    return {name: torch.lerp(first[name], trained[name], share) for name in trained}


def prepare(recipe: SeriesRecipe) -> SeriesExperiment:
    """Read the series and cut it into windows; the training part decides the scaling."""
    data = load_series(recipe.data, recipe.value, recipe.exogenous, decimal=recipe.decimal)
    network, horizon = recipe.network, recipe.horizon
    parts = divide_by_time(len(data.values), recipe)
    train = data.values[: parts.train_end]
    season = find_season(train[:, 0]) if recipe.season is None else recipe.season
    most = _MOST_LAGS_FED_BACK if network.kind in FED_BACK else _MOST_LAGS
    lags = network.lags or choose_lags(parts.train_end, season, horizon, most)
    window = max(lags, network.exogenous_lags or 0)
    require_rows(data, parts, window=max(window, AR_LAGS), horizon=horizon, season=season)
    combination = None
    if network.start == "combination" and network.linear:
        combination = combine(
            data.values[:, 0], parts, season=season, horizon=horizon, lags=lags, most=most
        )
    steps = 1 if network.kind in FED_BACK else horizon
    make = functools.partial(cut, data.values, window=window)
    return SeriesExperiment(
        recipe=recipe,
        data=data,
        parts=parts,
        combination=combination,
        train=make(0, parts.train_end, steps=steps),
        validation=make(parts.train_end, parts.validation_end, steps=horizon),
        held_out=make(parts.validation_end, len(data.values), steps=horizon),
        record=SeriesRecord(
            columns=list(data.columns),
            mean=train.mean(axis=0).tolist(),
            std=train.std(axis=0).tolist(),
            lags=lags,
            season=season,
            is_logarithm=combination is not None and combination.is_logarithm,
            is_centred=combination is not None and combination.differenced > _MOSTLY,
        ),
    )


def build_network(recipe: SeriesRecipe, record: SeriesRecord) -> Forecaster:
    """Build the network with fresh weights from torch's global generator."""
    settings = recipe.network.model_dump(exclude={"lags", "start"})
    return build_forecaster(
        mean=record.mean,
        std=record.std,
        lags=lags_of(recipe, record),
        horizon=recipe.horizon,
        is_centred=record.is_centred,
        is_logarithm=record.is_logarithm,
        **settings,
    )


def lags_of(recipe: SeriesRecipe, record: SeriesRecord) -> int:
    """Number of past values that the network reads; older runs have it in their recipe alone."""
    lags = record.lags or recipe.network.lags
    if lags is None:
        raise RunError(f"{recipe.name}: expected lags in the record of the series, got none")
    return lags


def window_of(recipe: SeriesRecipe, record: SeriesRecord) -> int:
    """Time steps of the network's input."""
    return max(lags_of(recipe, record), recipe.network.exogenous_lags or 0)


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
    # The record has what `prepare` finds out, which takes seconds for a long season.
    recipe, series = part_of(record, SeriesRecipe), part_of(record, SeriesRecord)
    data = load_series(recipe.data, recipe.value, recipe.exogenous, decimal=recipe.decimal)
    require_same_data(record, data.checksum)
    parts, end = divide_by_time(len(data.values), recipe), len(data.values)
    window = window_of(recipe, series)
    return cut(data.values, parts.validation_end, end, steps=recipe.horizon, window=window)
