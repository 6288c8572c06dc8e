"""Charts of benchmark results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.lib.harness import Run, Spread, spread

_INCHES, _DPI = (10.0, 4.5), 120


class Point(NamedTuple):
    """One point of a curve, with its spread over the rounds."""

    x: float
    y: Spread


class Curve(NamedTuple):
    """A curve through points; related curves share a colour."""

    name: str
    points: Sequence[Point]
    colour: int
    is_dashed: bool


def bars(
    path: Path,
    runs: Sequence[Run],
    *,
    rivals: Sequence[str],
    cases: Sequence[str],
    figures: Mapping[str, str],
) -> None:
    """Bar chart: a panel per figure, a group per case, a bar per rival; whiskers show the range.

    Args:
        path: of the PNG.
        runs: the measurements.
        rivals: in the order of a group.
        cases: in the order of the groups.
        figures: the axis title of each panel by figure.
    """
    picture, panels = _panels(len(figures))
    width, measured = 0.8 / len(rivals), {(run.rival, run.case) for run in runs}
    for panel, (figure, label) in zip(panels, figures.items(), strict=True):
        for place, rival in enumerate(rivals):
            left = (place - (len(rivals) - 1) / 2) * width
            here = [number for number, case in enumerate(cases) if (rival, case) in measured]
            found = [spread(runs, rival, cases[number], figure) for number in here]
            panel.bar(
                [number + left for number in here],
                [each.median for each in found],
                width,
                yerr=_whiskers(found),
                label=rival,
                capsize=2,
            )
        panel.set_xticks(range(len(cases)), cases, fontsize=8)
        panel.set_ylabel(label)
    panels[0].legend()
    picture.savefig(path, dpi=_DPI)


def curves(
    path: Path, panels: Mapping[str, Sequence[Curve]], *, x_label: str, y_label: str
) -> None:
    """Line chart: a panel per title with its curves; the y axis is logarithmic."""
    picture, axes = _panels(len(panels))
    for axis, (title, drawn) in zip(axes, panels.items(), strict=True):
        for curve in drawn:
            heights = [point.y for point in curve.points]
            axis.errorbar(
                [point.x for point in curve.points],
                [each.median for each in heights],
                yerr=_whiskers(heights),
                marker="o",
                capsize=2,
                label=curve.name,
                color=f"C{curve.colour}",
                linestyle="--" if curve.is_dashed else "-",
            )
        axis.set(title=title, xlabel=x_label, ylabel=y_label, yscale="log")
        axis.legend()
    picture.savefig(path, dpi=_DPI)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    picture = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(picture)
    return picture, [picture.add_subplot(1, count, number + 1) for number in range(count)]


def _whiskers(spreads: Sequence[Spread]) -> list[list[float]]:
    return [
        [each.median - each.least for each in spreads],
        [each.most - each.median for each in spreads],
    ]
