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
from weir.training.forecasting.evaluation import fit_autoregression
from weir.training.forecasting.experiment import forecast, load_model, load_test, prepare
from weir.training.forecasting.figures import FORECAST
from weir.training.forecasting.recipes import RECIPES, SeriesRecipe
from weir.training.models.series import FedBack, Forecaster
from weir.training.recipe import Setting
from weir.training.recipes import make_recipe, quicken
from weir.training.run_directory import RunRecord, read_record
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
