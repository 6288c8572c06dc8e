"""The figures of a run: learning curve and confusion matrix.

Names are drawn literally: matplotlib must not parse dollar signs as formulas.
"""

import math
import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FormatStrFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)
from numpy.typing import NDArray

from weir.training.class_scores import BASELINE
from weir.training.console import baseline_name, summarise_test
from weir.training.forecasting.evaluation import baseline_names
from weir.training.forecasting.recipes import FED_BACK, SeriesRecipe
from weir.training.recipes import AnyRecipe
from weir.training.run_directory import RunRecord

LEARNING_CURVE = "learning_curve.png"
CONFUSION_MATRIX = "confusion_matrix.png"
TRAINING, VALIDATION, KEPT, BASELINES = "#0072b2", "#d55e00", "#666666", "#009e73"
"""From the Okabe-Ito palette, which colour-blind readers can distinguish."""
LINE_STYLES = ("--", "-.", ":")
LABELLED_CLASSES = 25
"""Most classes with readable labels and numbers in the cells."""


def draw_learning_curve(record: RunRecord, path: Path) -> None:
    """Draw loss and accuracy, of a series the RMSE in its unit, by epoch.

    The epoch of the kept weights is marked, and the measure that chose it. Baselines are lines.
    """
    history = record.epochs
    figure = Figure(figsize=(6 if record.series else 10, 4.6), layout="constrained")
    if record.series is not None:
        std = record.series.std[0]
        chosen_by = axes = figure.subplots()
        _plot(
            axes,
            record,
            [std * math.sqrt(epoch.loss) for epoch in history],
            [std * math.sqrt(epoch.validation_loss) for epoch in history],
        )
        axes.set_ylabel(_series_error(record.recipe))
    else:
        loss, accuracy = figure.subplots(1, 2)
        _plot(loss, record, [e.loss for e in history], [e.validation_loss for e in history])
        _label_logarithmic(loss)
        _plot(
            accuracy,
            record,
            [e.accuracy or 0.0 for e in history],
            [e.validation_accuracy or 0.0 for e in history],
        )
        by_f1 = [e.validation_macro_f1 for e in history if e.validation_macro_f1 is not None]
        if by_f1:
            epochs = [epoch.epoch for epoch in history]
            label = "validation macro F1"
            accuracy.plot(epochs, by_f1, color=VALIDATION, linestyle="--", label=label)
        kind = "accuracy, macro F1" if by_f1 else "accuracy"
        accuracy.set_ylabel("accuracy of the next token" if record.pairs else kind)
        accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
        chosen_by = accuracy
    if record.series is not None and "rmse" in record.test_metrics:
        own = record.test_metrics["rmse"]
        label = f"{record.recipe.name}, on the test rows: {own:.4g}"
        chosen_by.axhline(own, color=VALIDATION, linestyle="--", label=label)
    for (name, score), style in zip(_baselines(record).items(), LINE_STYLES, strict=False):
        chosen_by.axhline(score, color=BASELINES, linestyle=style, label=name)
    figure.suptitle(_title(record), parse_math=False, fontsize="medium")
    # Below the axes, where it covers no curve.
    handles, labels = chosen_by.get_legend_handles_labels()
    columns = 2 if record.series else 4
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize="small")
    save(figure, path)


def _label_logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.set_ylabel("mean loss (logarithmic axis)")
    least, most = axes.get_ylim()
    few_labels = LogLocator(subs=(1.0, 2.0, 5.0))
    # Over less than a decade, 1, 2 and 5 are too few labels.
    axes.yaxis.set_major_locator(MaxNLocator(6) if most < 8 * least else few_labels)
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _series_error(recipe: AnyRecipe) -> str:
    """Name the error of the curves: networks that feed themselves back learn one step."""
    is_fed_back = isinstance(recipe, SeriesRecipe) and recipe.network.kind in FED_BACK
    return "RMSE over the horizon" + ("\n(training: 1 step ahead)" if is_fed_back else "")


def _baselines(record: RunRecord) -> dict[str, float]:
    """The baselines' scores in the unit of the validation curve, by label.

    They are of the test rows, which may be harder: a series' own test score is beside them.
    """
    metrics = record.test_metrics
    if record.series is None:
        score = metrics.get(f"{BASELINE}accuracy")
        if score is None:
            return {}
        return {f"{baseline_name(record)}, on the test rows: {score:.1%}": score}
    names = baseline_names(record.series.season)
    scores = {shown: metrics.get(f"{key}_rmse") for key, shown in names.items()}
    return {
        f"{shown}, on the test rows: {score:.4g}": score
        for shown, score in scores.items()
        if score is not None
    }


def draw_confusion_matrix(record: RunRecord, counts: NDArray[np.int64], path: Path) -> None:
    """Draw test rows by true class (row) and answer (column), coloured by share of the class."""
    size = len(record.classes)
    side = min(max(4.5, 2.2 + 0.55 * size), 12.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    bar = figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.03)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    bar.set_label("share of the true class")
    if size <= LABELLED_CLASSES:
        _label_cells(axes, counts, shares)
        label_axes(axes, record.classes, record.classes)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    axes.set_title(_title(record), parse_math=False, fontsize="medium")
    save(figure, path)


def label_axes(axes: Axes, across: list[str], down: list[str], size: float = 10.0) -> None:
    """Label the columns and rows of a matrix; long labels of columns are slanted."""
    axes.set_xticks(range(len(across)), across, parse_math=False, size=size)
    if max(map(len, across)) > 2:
        axes.tick_params(axis="x", labelrotation=45)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(down)), down, parse_math=False, size=size)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # Letters that the font lacks show as boxes; a warning for each would be noise.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        figure.savefig(path, dpi=100, bbox_inches="tight", pad_inches=0.1)


def _plot(axes: Axes, record: RunRecord, training: list[float], validation: list[float]) -> None:
    epochs = [epoch.epoch for epoch in record.epochs]
    mark = "o" if len(epochs) < 3 else None
    axes.plot(epochs, training, color=TRAINING, label="training", marker=mark)
    axes.plot(epochs, validation, color=VALIDATION, label="validation", marker=mark)
    best = record.best_epoch
    if record.series is not None and not record.series.trained_share:
        # No epoch is kept; the first validation error lies after one epoch already.
        axes.plot([], [], " ", label="kept: the linear forecast before epoch 1")
    else:
        is_mixed = record.series is not None and record.series.trained_share < 1.0
        kept = (
            f"kept: half-way from the linear forecast to epoch {best}"
            if is_mixed
            else f"kept: epoch {best}, {_reason(record)}"
        )
        axes.axvline(best, color=KEPT, linestyle=":", label=kept)
        axes.plot([best], [validation[best - 1]], color=VALIDATION, marker="o")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _reason(record: RunRecord) -> str:
    """Say by which measure the epoch of the kept weights is the best."""
    if record.recipe.keep == "last":
        return "the last"
    if record.keeps_last:
        return "the last (too few validation rows for a choice)"
    best = record.epochs[record.best_epoch - 1]
    if best.validation_macro_f1 is not None:
        weights = getattr(record.recipe, "class_weights", 0.0)
        return f"best validation macro F1 (class weights {weights:g})"
    return (
        "lowest validation loss" if best.validation_accuracy is None else "best validation accuracy"
    )


def _label_cells(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(
            column, row, str(counts[row, column]), ha="center", va="center", color=colour, size=9
        )


def _title(record: RunRecord) -> str:
    title = f"{record.recipe.name} on {Path(record.data.name).name}"
    is_tested = record.test_accuracy is not None or record.series
    # A series' further lines are in its forecast figure.
    return f"{title}\n{summarise_test(record).splitlines()[0]}" if is_tested else title
