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

from weir.training.console import summarise_test
from weir.training.run_directory import RunRecord

LEARNING_CURVE = "learning_curve.png"
CONFUSION_MATRIX = "confusion_matrix.png"
TRAINING, VALIDATION, BEST = "#0072b2", "#d55e00", "#666666"
"""From the Okabe-Ito palette, which colour-blind readers can distinguish."""
LABELLED_CLASSES = 25
"""Most classes with readable labels and numbers in the cells."""


def draw_learning_curve(record: RunRecord, path: Path) -> None:
    """Draw loss and accuracy, of a series the RMSE in its unit, by epoch; the best is marked."""
    history = record.epochs
    if record.series is not None:
        std = record.series.std[0]
        figure = Figure(figsize=(6, 4.2), layout="constrained")
        error = figure.subplots()
        _plot(
            error,
            record,
            [std * math.sqrt(epoch.loss) for epoch in history],
            [std * math.sqrt(epoch.validation_loss) for epoch in history],
        )
        error.set_ylabel("RMSE (over the trained steps)")
        error.legend(loc="upper right")
        figure.suptitle(_title(record), parse_math=False)
        save(figure, path)
        return
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    _plot(loss, record, [e.loss for e in history], [e.validation_loss for e in history])
    _plot(
        accuracy,
        record,
        [e.accuracy or 0.0 for e in history],
        [e.validation_accuracy or 0.0 for e in history],
    )
    loss.set_ylabel("loss (mean over the rows)")
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    loss.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    loss.yaxis.set_minor_formatter(NullFormatter())
    loss.legend(loc="upper right")
    accuracy.set_ylabel("accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    accuracy.legend(loc="lower right")
    figure.suptitle(_title(record), parse_math=False)
    save(figure, path)


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
    axes.set_title(_title(record), parse_math=False)
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
    axes.axvline(best, color=BEST, linestyle=":", label=f"best epoch ({best})")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _label_cells(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(
            column, row, str(counts[row, column]), ha="center", va="center", color=colour, size=9
        )


def _title(record: RunRecord) -> str:
    title = f"{record.recipe.name} on {Path(record.data.name).name}"
    is_tested = record.test_accuracy is not None or record.series
    return f"{title}\n{summarise_test(record)}" if is_tested else title
