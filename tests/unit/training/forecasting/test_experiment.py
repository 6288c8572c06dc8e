"""Whole forecasting runs: accuracy, record, figures and refused settings."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.helpers.training import train
from weir.training.__main__ import main
from weir.training.data.series import load_series
from weir.training.errors import DataError, RecipeError, RunError
from weir.training.figures import CONFUSION_MATRIX, LEARNING_CURVE
from weir.training.forecasting.evaluation import SEASON, baseline_names, fit_autoregression
from weir.training.forecasting.experiment import (
    build_network,
    forecast,
    load_model,
    load_test,
    prepare,
)
from weir.training.forecasting.figures import FORECAST, ForecastFigure, forecast_figure
from weir.training.forecasting.recipes import RECIPES, SeriesRecipe
from weir.training.models.series import FedBack, Forecaster
from weir.training.recipe import Setting
from weir.training.recipes import make_recipe, quicken
from weir.training.run_directory import RunRecord, SeriesRecord, read_record
from weir.training.train import Monitor

CPU = torch.device("cpu")


def write(folder: Path, values: "np.typing.NDArray[np.float64]", others: object = None) -> str:
    """A file of the column y, and of u where there are others."""
    path = folder / "series.csv"
    columns = values[:, None] if others is None else np.column_stack([values, np.asarray(others)])
    header = "y" if others is None else "y,u"
    np.savetxt(path, columns, delimiter=",", header=header, comments="")
    return str(path)


def second_order(count: int) -> "np.typing.NDArray[np.float64]":
    """y(t) = 30 + 1.2 y(t-1) - 0.5 y(t-2) + noise: mean 100."""
    generator = np.random.default_rng(0)
    values = [100.0, 100.0]
    for shock in generator.standard_normal(count):
        values.append(30.0 + 1.2 * values[-1] - 0.5 * values[-2] + 5.0 * shock)
    return np.array(values)


def make(name: str, data: str, **changes: Setting) -> SeriesRecipe:
    recipe = make_recipe(name, data, value="y", **changes)
    assert isinstance(recipe, SeriesRecipe)
    return recipe


def linear_of(run: Path) -> nn.Linear:
    network = load_model(run)
    assert isinstance(network, Forecaster) and isinstance(network.core, FedBack)
    assert network.core.step.linear is not None
    return network.core.step.linear


@pytest.fixture
def monitor(silent: Callable[..., Monitor]) -> Monitor:
    return silent()


def test_ar_learns_what_least_squares_finds(tmp_path: Path, monitor: Monitor) -> None:
    values = second_order(3000)
    changes: dict[str, Setting] = {"network": {"lags": 2}, "optimizer": {"weight_decay": 0.0}}
    recipe = make("ar", write(tmp_path, values), **changes)

    train(recipe, tmp_path / "run", CPU, monitor, None)

    learnt = linear_of(tmp_path / "run").weight[0].detach().numpy()
    fitted = fit_autoregression(values[:2100], 2)
    np.testing.assert_allclose(learnt, fitted.weights, atol=0.02)
    np.testing.assert_allclose(learnt, [-0.5, 1.2], atol=0.05)


def test_a_linear_trend_is_forecast_beyond_what_training_saw(
    tmp_path: Path, monitor: Monitor
) -> None:
    data = write(tmp_path, 5.0 + 2.0 * np.arange(400.0))
    changes: dict[str, Setting] = {"network": {"lags": 2}, "optimizer": {"weight_decay": 0.0}}

    record = train(make("ar", data, **changes), tmp_path / "run", CPU, monitor, None)

    assert record.test_metrics["ar9_rmse_12"] < 1e-3
    assert record.test_metrics["rmse_1"] < 0.05 * record.test_metrics["persistence_rmse_1"]
    assert record.test_metrics["rmse_12"] < 0.05 * record.test_metrics["persistence_rmse_12"]


def test_narx_uses_the_other_column(tmp_path: Path, monitor: Monitor) -> None:
    cause = np.random.default_rng(0).standard_normal(1500)
    # The square of the cause: a linear map cannot use it.
    effect = np.concatenate([[0.0], cause[:-1] ** 2]) + 10.0
    data = write(tmp_path, effect, cause)
    changes: dict[str, Setting] = {
        "horizon": 1,
        "network": {"lags": 2, "exogenous_lags": 1, "dropout": 0.0},
        "optimizer": {"learning_rate": 1e-2},
    }

    without = make("narx", data, network={"lags": 2}, horizon=1)
    blind = train(without, tmp_path / "a", CPU, monitor, None)
    seeing = train(
        make("narx", data, exogenous=("u",), **changes), tmp_path / "b", CPU, monitor, None
    )

    assert seeing.test_metrics["rmse_1"] < 0.3 * blind.test_metrics["rmse_1"]
    assert set(seeing.test_metrics) == {"coverage"} | {
        f"{model}{measure}{lead}"
        for model in ("", "ar9_", "persistence_")
        for measure in ("rmse", "mase")
        for lead in ("", "_1")
    }


def test_scaling_is_learnt_on_the_training_part_alone(tmp_path: Path) -> None:
    values = second_order(1000)
    before = prepare(make("ar", write(tmp_path, values))).record
    values[800:] *= 7.0
    after = prepare(make("ar", write(tmp_path, values))).record

    assert before == after
    assert before.mean == pytest.approx([values[:702].mean()])
    assert before.std == pytest.approx([values[:702].std()])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick form of the LSTM, by the command line, on a file with another column."""
    folder = tmp_path_factory.mktemp("series")
    values = second_order(400)
    data = write(folder, values, np.roll(values, 1))
    options = "--value y --exogenous u --horizon 3 --hidden 4 --lags 8 --quick --out"
    words = ["series-lstm", "--data", data, *options.split(), str(folder / "run")]
    assert main(words) == 0
    return folder / "run"


def test_the_record_describes_the_run(finished: Path) -> None:
    record = read_record(finished)

    assert (record.task, record.architecture, record.classes) == ("forecasting", "series-lstm", [])
    assert record.series is not None and record.series.columns == ["y", "u"]
    assert record.test_accuracy is None
    assert {"rmse_1", "mase_3", "ar9_rmse_3", "persistence_mase_1"} <= set(record.test_metrics)
    losses = [epoch.validation_loss for epoch in record.epochs]
    assert losses[record.best_epoch - 1] == min(losses)
    assert all(epoch.accuracy is epoch.validation_accuracy is None for epoch in record.epochs)


def test_its_errors_are_those_of_its_weights(finished: Path) -> None:
    record = read_record(finished)
    rows = load_test(record)

    ahead = forecast(load_model(finished), rows)

    errors = ahead - rows.targets.numpy()
    assert record.test_metrics["rmse_3"] == pytest.approx(np.sqrt(np.mean(errors[:, 2] ** 2)))
    assert len(rows) == record.data.test_rows


def test_its_pictures_are_drawn_and_small(finished: Path) -> None:
    for name in (FORECAST, LEARNING_CURVE):
        assert (finished / name).stat().st_size <= 200_000
        with Image.open(finished / name) as picture:
            assert min(picture.size) >= 300 and max(picture.size) <= 1600
    assert not (finished / CONFUSION_MATRIX).exists()


def test_the_same_seed_gives_the_same_weights(
    tmp_path: Path, silent: Callable[..., Monitor]
) -> None:
    recipe = make("narx", write(tmp_path, second_order(300)), epochs=2, seed=4)

    for name in ("a", "b"):
        train(recipe, tmp_path / name, CPU, silent(), None)

    assert torch.equal(linear_of(tmp_path / "a").weight, linear_of(tmp_path / "b").weight)


def test_changed_data_are_refused(tmp_path: Path, finished: Path) -> None:
    record = read_record(finished)
    data = write(tmp_path, second_order(400), np.arange(402))
    moved = record.model_copy(update={"recipe": record.recipe.model_copy(update={"data": data})})

    with pytest.raises(DataError, match="SHA-256 was"):
        load_test(moved)


def test_a_run_of_another_kind_is_refused(finished: Path) -> None:
    record = read_record(finished)
    other = record.model_copy(update={"recipe": make_recipe("lenet5")})

    with pytest.raises(RunError, match="lenet5: expected a run on series, got forecasting"):
        load_test(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"network": {"kind": "lstm", "exogenous_lags": 2}},
            "exogenous_lags goes with ar and narx",
        ),
        ({"network": {"layers": 2}}, "layers goes with recurrent cells"),
        ({"network": {"exogenous_lags": 2}}, "exogenous_lags goes with exogenous columns"),
        ({"exogenous": ("u", "y")}, "must be different columns"),
        ({"exogenous": ("u", "u")}, "must be different columns"),
        ({"validation_share": 0.5, "test_share": 0.5}, "must leave rows to train on"),
        ({"label_smoothing": 0.1}, "numbers are no labels"),
        ({"horizon": 0}, "horizon: Input should be greater than or equal to 1"),
        ({"network": {"cell": "lstm"}}, "network.cell: Extra inputs are not permitted"),
    ],
    ids=[
        "cell-lags",
        "layers",
        "no-columns",
        "same",
        "twice",
        "shares",
        "labels",
        "horizon",
        "cell",
    ],
)
def test_a_bad_setting_is_named(changes: dict[str, Setting], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make("narx", "/my.csv", **changes)


@pytest.mark.parametrize("name", RECIPES)
def test_quick_form_reads_less(name: str) -> None:
    whole = make_recipe(name)

    quick = quicken(whole)

    assert isinstance(whole, SeriesRecipe) and isinstance(quick, SeriesRecipe)
    assert quick.epochs < whole.epochs
    assert whole.network.lags is None and quick.network.lags == 24


def seasonal(season: int, count: int) -> "np.typing.NDArray[np.float64]":
    """A season of two harmonics on a trend, with noise of a third of its deviation."""
    generator = np.random.default_rng([season, count])
    steps = np.arange(count)
    phase = 2.0 * np.pi * steps / season
    shape = np.sin(phase) + 0.6 * np.cos(2.0 * phase)
    return np.asarray(200.0 + 0.1 * steps + 12.0 * shape + 3.0 * generator.standard_normal(count))


def errors_beside_last_season(run: Path, values: object, season: int) -> tuple[float, float]:
    """RMSE over all 12 steps of the run's network, and of the value one season before."""
    given = np.asarray(values)
    rows = load_test(read_record(run))
    found = forecast(load_model(run), rows)
    steps = np.arange(12)
    origins = np.arange(round(0.8 * len(given)), len(given) - 11)
    truth = given[origins[:, None] + steps]
    before = given[origins[:, None] - season + steps % season]
    assert found.shape == truth.shape
    own, naive = (np.sqrt(np.square(each - truth).mean()) for each in (found, before))
    return float(own), float(naive)


@pytest.mark.parametrize("name", ["narx", "series-lstm"])
@pytest.mark.parametrize(("season", "count"), [(12, 120), (7, 300)])
def test_a_short_seasonal_series_is_forecast_better_than_by_its_last_season(
    name: str, season: int, count: int, tmp_path: Path, monitor: Monitor
) -> None:
    values = seasonal(season, count)

    record = train(make(name, write(tmp_path, values)), tmp_path / "run", CPU, monitor, None)

    own, naive = errors_beside_last_season(tmp_path / "run", values, season)
    assert own < 0.95 * naive
    assert record.series is not None and record.series.season == season
    assert record.test_metrics["rmse"] == pytest.approx(own, rel=1e-6)
    assert record.test_metrics["season_rmse"] == pytest.approx(naive, rel=1e-6)


def test_the_season_may_be_given(tmp_path: Path) -> None:
    data = write(tmp_path, seasonal(12, 200))

    given = prepare(make("narx", data, season=6)).record
    none = prepare(make("narx", data, season=0)).record

    assert (given.season, none.season) == (6, 0)
    with pytest.raises(DataError, match="a season below the 136 rows to train on, got 150"):
        prepare(make("narx", data, season=150))


def test_the_interval_is_that_of_errors_on_the_validation_part(
    tmp_path: Path, monitor: Monitor
) -> None:
    """Against numpy, for the first step and the last, from every origin before them."""
    values = second_order(500)
    recipe = make("narx", write(tmp_path, values), epochs=2, network={"lags": 5}, horizon=4)

    record = train(recipe, tmp_path / "run", CPU, monitor, None)

    assert record.series is not None and record.series.interval is not None
    network, found = load_model(tmp_path / "run"), record.series.interval
    begin, end = 502 - 100 - 50, 502 - 100
    before = 0.0
    for step in range(4):
        origins = np.arange(begin - step, end - step)
        histories = torch.from_numpy(values[origins[:, None] + np.arange(-5, 0), None]).float()
        with torch.inference_mode():
            ahead = network(histories).double().numpy()[:, step]
        errors = np.abs(ahead - values[origins + step])
        if found.is_relative:
            errors = np.abs(np.log(ahead / values[origins + step]))
        # ceil(51 * 0.8) = 41
        before = max(before, np.sort(errors)[40] * (1 + 0.5 / np.sqrt(50)))
        upper = np.exp(before) - 1.0 if found.is_relative else before
        assert found.upper[step] == pytest.approx(upper, rel=1e-4)


def test_too_few_rows_to_validate_on_make_no_interval(tmp_path: Path, monitor: Monitor) -> None:
    recipe = make("ar", write(tmp_path, second_order(58)), epochs=1, horizon=4)

    record = train(recipe, tmp_path / "run", CPU, monitor, None)

    assert record.series is not None and record.series.interval is None
    assert "coverage" not in record.test_metrics
    assert record.test_notes["interval"] == ("none: expected 15 or more rows to validate on, got 8")


def test_training_that_helps_nothing_is_undone(tmp_path: Path, monitor: Monitor) -> None:
    """A learning rate that breaks the linear forecast in one epoch."""
    changes: dict[str, Setting] = {"epochs": 2, "average_decay": 0.0}
    values = seasonal(12, 240)
    recipe = make("ar", write(tmp_path, values), optimizer={"learning_rate": 0.5}, **changes)

    record = train(recipe, tmp_path / "run", CPU, monitor, None)

    own, naive = errors_beside_last_season(tmp_path / "run", values, 12)
    assert record.series is not None and record.series.trained_share == 0.0
    assert own < naive
    assert record.test_notes["weights"].startswith("the linear forecast that training began with")


def test_exogenous_columns_that_the_kept_forecast_does_not_read_are_named(
    tmp_path: Path, monitor: Monitor
) -> None:
    """The linear forecast before training reads the past of the value alone."""
    values = seasonal(12, 240)
    data = write(tmp_path, values, np.cos(np.arange(len(values))))
    changes: dict[str, Setting] = {"epochs": 2, "average_decay": 0.0, "exogenous": ("u",)}
    recipe = make("ar", data, optimizer={"learning_rate": 0.5}, **changes)

    record = train(recipe, tmp_path / "run", CPU, monitor, None)

    assert record.series is not None and record.series.trained_share == 0.0
    assert record.test_notes["exogenous columns"].startswith("of no use")


def test_picture_shows_dates_and_the_names_that_the_summary_prints(tmp_path: Path) -> None:
    months = np.arange("2001-01", "2021-01", dtype="datetime64[M]").astype(str)
    rows = zip(months, seasonal(12, 240), strict=True)
    data = tmp_path / "series.csv"
    data.write_text("month,y $a$ b$\n" + "".join(f"{date},{value}\n" for date, value in rows))
    series = load_series(str(data), None)
    truth = np.ones((20, 3))
    content = ForecastFigure(
        "ar", series, 200, truth, {"": truth, SEASON: truth}, baseline_names(12)
    )

    figure = forecast_figure(content)

    figure.draw_without_rendering()
    _, errors, far = figure.axes
    assert errors.get_legend_handles_labels()[1] == ["ar", "12 steps before"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["measured", "ar"]
    assert "2018" in [label.get_text() for label in far.get_xticklabels()]


def test_a_run_of_before_is_read_as_it_was_trained(tmp_path: Path) -> None:
    """Its recipe has its lags and no start, its record no lags and no season."""
    recipe = make("narx", write(tmp_path, second_order(300)), network={"lags": 8})
    settings = recipe.model_dump()
    del settings["season"], settings["network"]["start"]
    before = SeriesRecipe.model_validate(settings)
    record = SeriesRecord.model_validate({"columns": ["y"], "mean": [1.0], "std": [2.0]})

    network = build_network(before, record)

    assert before.network.start == "persistence"
    assert isinstance(network.core, FedBack) and not network.is_logarithm
    assert network.core.step.lags == 8 and not network.core.step.centred
    assert prepare(before).combination is None


@pytest.mark.usefixtures("weir_data")
def test_ar_beats_the_baselines_on_the_sunspots(tmp_path: Path, monitor: Monitor) -> None:
    record: RunRecord = train(make_recipe("ar"), tmp_path / "run", CPU, monitor, None)

    metrics = record.test_metrics
    for model in ("ar9", "persistence"):
        for measure in ("rmse_1", "rmse_12", "mase_1", "mase_12"):
            assert metrics[measure] < metrics[f"{model}_{measure}"]


@pytest.mark.usefixtures("weir_data")
def test_the_baseline_has_the_errors_that_numpy_gives(tmp_path: Path, monitor: Monitor) -> None:
    recipe = make_recipe("ar", epochs=1)
    metrics = train(recipe, tmp_path / "run", CPU, monitor, None).test_metrics
    values = load_series("sunspots", None).values[:, 0]

    windows = np.lib.stride_tricks.sliding_window_view(values, 10)
    weights = np.linalg.lstsq(
        np.column_stack([windows[:1965, :9], np.ones(1965)]), windows[:1965, 9]
    )[0]
    first = 2820 - 564 - 9
    rows = windows[first : first + 553]
    errors = rows[:, :9] @ weights[:9] + weights[9] - rows[:, 9]

    assert metrics["ar9_rmse_1"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)
    naive = np.abs(np.diff(values[:1974])).mean()
    assert metrics["ar9_mase_1"] == pytest.approx(np.abs(errors).mean() / naive, rel=1e-5)
