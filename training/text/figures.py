"""The class table of a run on sequences, as a figure."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from weir.training.figures import save
from weir.training.text.scores import ClassScore

CLASS_TABLE = "classes.png"
MOST_CLASSES = 60
"""More rows would not be readable; the rarest are left out, and the title says so."""

_HEADINGS = ("class", "precision", "recall", "F1", "support")


def draw_class_table(table: Sequence[ClassScore], title: str, path: Path) -> None:
    """Draw precision, recall, F1 and support per class, most frequent first; bars show F1."""
    shown = table[:MOST_CLASSES]
    figure = Figure(figsize=(6.4, 1.0 + 0.26 * (len(shown) + 1)), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(len(shown) + 0.5, -1.0)
    columns = (0.02, 0.5, 0.65, 0.8, 0.97)
    for column, heading in zip(columns, _HEADINGS, strict=True):
        axes.text(column, -0.5, heading, weight="bold", ha="left" if column < 0.1 else "right")
    for row, line in enumerate(shown):
        axes.barh(row + 0.3, 0.96 * line.f1, left=0.01, height=0.85, color="#cfe3f5")
        cells = (
            f"{line.precision:.3f}",
            f"{line.recall:.3f}",
            f"{line.f1:.3f}",
            f"{line.support:,}",
        )
        axes.text(columns[0], row + 0.5, line.label, parse_math=False)
        for column, cell in zip(columns[1:], cells, strict=True):
            axes.text(column, row + 0.5, cell, ha="right")
    rest = (
        f", the {len(shown)} most frequent of {len(table)} classes"
        if len(shown) < len(table)
        else ""
    )
    axes.set_title(f"{title}{rest}; bars show F1", fontsize="medium", parse_math=False)
    save(figure, path)
