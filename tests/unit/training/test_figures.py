"""The figures of a run, for few and for many classes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from weir.training.figures import draw_confusion_matrix, draw_learning_curve
from weir.training.recipes import make_recipe
from weir.training.run_directory import (
    DataRecord,
    EpochRecord,
    ImageRecord,
    RunRecord,
    SeriesRecord,
)


def record(classes: int, epochs: int) -> RunRecord:
    history = [
        EpochRecord(
            epoch=epoch,
            learning_rate=0.1,
            loss=1.0 / epoch,
            accuracy=0.9,
            validation_loss=1.2 / epoch,
            validation_accuracy=0.8,
            seconds=1.0,
        )
        for epoch in range(1, epochs + 1)
    ]
    return RunRecord(
        recipe=make_recipe("lenet5", "mnist"),
        architecture="lenet5",
        task="image-classification",
        data=DataRecord(name="mnist", checksum="0", train_rows=1, validation_rows=1, test_rows=1),
        seed=0,
        classes=[f"class of number {number}" for number in range(classes)],
        image=ImageRecord(height=28, width=28, channels=1, mean=[0.1], std=[0.3]),
        versions={},
        commit=None,
        device="cpu",
        epochs=history,
        best_epoch=1,
        test_accuracy=0.99,
        seconds=1.0,
    )


@pytest.fixture
def learning_curve(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunRecord], Figure]:
    """Draws a learning curve and returns its figure."""
    figures: list[Figure] = []
    monkeypatch.setattr("weir.training.figures.save", lambda figure, path: figures.append(figure))

    def draw(drawn: RunRecord) -> Figure:
        draw_learning_curve(drawn, Path("curve.png"))
        return figures[-1]

    return draw


@pytest.mark.parametrize("classes", [2, 10, 200], ids=str)
@pytest.mark.parametrize("epochs", [1, 50], ids=str)
def test_figures_are_drawn_and_small(tmp_path: Path, classes: int, epochs: int) -> None:
    counts = np.random.default_rng(0).integers(0, 9, (classes, classes))

    draw_learning_curve(record(classes, epochs), tmp_path / "curve.png")
    draw_confusion_matrix(record(classes, epochs), counts, tmp_path / "matrix.png")

    for name in ("curve.png", "matrix.png"):
        assert (tmp_path / name).stat().st_size <= 100_000
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) >= 300 and max(picture.size) <= 1600


def test_the_curve_says_that_macro_f1_chose_the_epoch(
    learning_curve: Callable[[RunRecord], Figure],
) -> None:
    weighted = record(2, 3)
    recipe = make_recipe("lenet5", "mnist", class_weights=0.5)
    epochs = [epoch.model_copy(update={"validation_macro_f1": 0.5}) for epoch in weighted.epochs]

    figure = learning_curve(weighted.model_copy(update={"recipe": recipe, "epochs": epochs}))

    labels = legend_of(figure)
    assert "validation macro F1" in labels
    assert "kept: epoch 1, best validation macro F1 (class weights 0.5)" in labels


def test_names_are_shown_as_they_are_and_never_read_as_formulas(tmp_path: Path) -> None:
    named = record(2, 3)
    named.classes = ["$^$", "名词"]
    named.data.name = "/my/$^$"

    draw_learning_curve(named, tmp_path / "curve.png")
    draw_confusion_matrix(named, np.eye(2, dtype=np.int64), tmp_path / "matrix.png")

    assert (tmp_path / "curve.png").stat().st_size and (tmp_path / "matrix.png").stat().st_size


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_learning_curve_says_that_its_axis_is_logarithmic_and_which_epoch_was_kept(
    learning_curve: Callable[[RunRecord], Figure],
) -> None:
    drawn = record(10, 12)
    drawn.best_epoch = 7
    drawn.test_metrics = {"macro_f1": 0.9, "baseline_accuracy": 0.1135, "baseline_macro_f1": 0.02}

    figure = learning_curve(drawn)

    loss, accuracy = figure.axes
    assert (loss.get_yscale(), loss.get_ylabel()) == ("log", "mean loss (logarithmic axis)")
    assert (accuracy.get_yscale(), accuracy.get_ylabel()) == ("linear", "accuracy")
    assert legend_of(figure) == [
        "training",
        "validation",
        "kept: epoch 7, best validation accuracy",
        "most frequent class, on the test rows: 11.3%",
    ]
    (baseline,) = [line for line in accuracy.lines if "most frequent" in str(line.get_label())]
    assert set(np.asarray(baseline.get_ydata()).tolist()) == {0.1135}


def test_learning_curve_says_that_the_last_epoch_was_kept(
    learning_curve: Callable[[RunRecord], Figure],
) -> None:
    drawn = record(10, 12)
    drawn.best_epoch = 12
    drawn.recipe = drawn.recipe.model_copy(update={"keep": "last"})

    assert "kept: epoch 12, the last" in legend_of(learning_curve(drawn))


@pytest.mark.parametrize("decades", [0.2, 1.0, 4.0], ids=str)
def test_learning_curve_labels_several_losses_over_any_range(
    learning_curve: Callable[[RunRecord], Figure], decades: float
) -> None:
    drawn = record(3, 5)
    for epoch in drawn.epochs:
        epoch.loss = epoch.validation_loss = 0.7 * 10 ** (-decades * (epoch.epoch - 1) / 4)

    figure = learning_curve(drawn)
    figure.draw_without_rendering()

    axis = figure.axes[0]
    least, most = axis.get_ylim()
    shown = [place for place in axis.yaxis.get_majorticklocs() if least <= place <= most]
    assert 3 <= len(shown) <= 16


def test_learning_curve_of_a_series_shows_baselines_over_the_horizon(
    learning_curve: Callable[[RunRecord], Figure],
) -> None:
    drawn = record(0, 3)
    drawn.recipe = make_recipe("narx", "sunspots")
    drawn.image, drawn.test_accuracy = None, None
    drawn.series = SeriesRecord(columns=["Sunspots"], mean=[50.0], std=[40.0], season=12)
    drawn.test_metrics = {"rmse": 25.5, "rmse_1": 18.5, "ar9_rmse": 30.5, "ar9_rmse_1": 18.9}
    drawn.test_metrics |= {"persistence_rmse": 33.5, "season_rmse": 35.5}
    for epoch in drawn.epochs:
        epoch.accuracy = epoch.validation_accuracy = None

    figure = learning_curve(drawn)

    (axes,) = figure.axes
    assert (axes.get_yscale(), axes.get_ylabel()) == (
        "linear",
        "RMSE over the horizon\n(training: 1 step ahead)",
    )
    assert legend_of(figure)[2:] == [
        "kept: epoch 1, lowest validation loss",
        "narx, on the test rows: 25.5",
        "AR(9), on the test rows: 30.5",
        "persistence, on the test rows: 33.5",
        "12 steps before, on the test rows: 35.5",
    ]
    named = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    assert len({(line.get_color(), line.get_linestyle()) for line in named}) == len(named) == 7


@pytest.mark.parametrize(
    ("share", "kept"),
    [
        (0.0, "kept: the linear forecast before epoch 1"),
        (0.5, "kept: half-way from the linear forecast to epoch 1"),
        (1.0, "kept: epoch 1, lowest validation loss"),
    ],
)
def test_learning_curve_of_a_series_says_which_weights_were_kept(
    learning_curve: Callable[[RunRecord], Figure], share: float, kept: str
) -> None:
    drawn = record(0, 3)
    drawn.recipe = make_recipe("ar", "sunspots")
    drawn.image, drawn.test_accuracy = None, None
    drawn.series = SeriesRecord(columns=["y"], mean=[50.0], std=[40.0], trained_share=share)
    for epoch in drawn.epochs:
        epoch.accuracy = epoch.validation_accuracy = None

    figure = learning_curve(drawn)

    assert legend_of(figure)[2:] == [kept]
