"""Charts of benchmark results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.lib.harness import Run, Spread, spread

_INCHES, _DPI = (10.0, 4.5), 120


def bars(
    path: Path,
    runs: Sequence[Run],
    *,
    rivals: Sequence[str],
    cases: Sequence[str],
    figures: Mapping[str, str],
) -> None:
    """Bar chart: a panel per figure, a group per case, a bar per rival; whiskers show the range.

    `figures` gives each figure's axis title.
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
    path: Path,
    panels: Mapping[str, Sequence[Run]],
    *,
    rivals: Sequence[str],
    x: str,
    figures: Mapping[str, str],
    labels: tuple[str, str],
) -> None:
    """Line chart: a panel per title, a colour per rival; the y axis is logarithmic.

    Args:
        x: the figure of the x axis, whose median counts.
        figures: the line style of each figure of the y axis.
        labels: of the two axes.
    """
    picture, axes = _panels(len(panels))
    for axis, (title, runs) in zip(axes, panels.items(), strict=True):
        for colour, rival in enumerate(rivals):
            cases = dict.fromkeys(run.case for run in runs if run.rival == rival)
            for figure, style in figures.items():
                found = [spread(runs, rival, case, figure) for case in cases]
                axis.errorbar(
                    [spread(runs, rival, case, x).median for case in cases],
                    [each.median for each in found],
                    yerr=_whiskers(found),
                    marker="o",
                    capsize=2,
                    label=f"{rival}, {figure}",
                    color=f"C{colour}",
                    linestyle=style,
                )
        axis.set(title=title, xlabel=labels[0], ylabel=labels[1], yscale="log")
        axis.legend()
    picture.savefig(path, dpi=_DPI)


def goodput(path: Path, panels: Mapping[str, Sequence[Run]]) -> None:
    """Line chart: calls answered in time against calls offered; a panel per title, a line a rival.

    The figures of a run are `offered_per_s` and `goodput_per_s`.
    """
    picture, axes = _panels(len(panels))
    for axis, (title, runs) in zip(axes, panels.items(), strict=True):
        for rival in dict.fromkeys(run.rival for run in runs):
            cases = dict.fromkeys(run.case for run in runs if run.rival == rival)
            offered = [spread(runs, rival, case, "offered_per_s").median for case in cases]
            found = [spread(runs, rival, case, "goodput_per_s") for case in cases]
            medians, whiskers = [each.median for each in found], _whiskers(found)
            axis.errorbar(offered, medians, yerr=whiskers, marker="o", capsize=2, label=rival)
        axis.set(title=title, xscale="log", ylim=(0, None))
        axis.set(xlabel="calls offered a second", ylabel="calls answered in time a second")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(alpha=0.3)
        axis.legend()
    picture.savefig(path, dpi=_DPI)


def growth(
    path: Path,
    runs: Sequence[Run],
    *,
    rival: str,
    x: tuple[str, str],
    figures: Mapping[str, str],
    is_logarithmic: bool,
) -> None:
    """Line chart of one server: a panel per figure; linear axes start at 0.

    Args:
        x: the figure of the x axis, and its axis title.
        figures: the axis title of each figure.
        is_logarithmic: both axes.
    """
    picture, panels = _panels(len(figures))
    cases = dict.fromkeys(run.case for run in runs)
    places = [spread(runs, rival, case, x[0]).median for case in cases]
    for panel, (figure, label) in zip(panels, figures.items(), strict=True):
        found = [spread(runs, rival, case, figure) for case in cases]
        medians = [each.median for each in found]
        panel.errorbar(places, medians, yerr=_whiskers(found), marker="o", capsize=2)
        panel.set(xlabel=x[1], ylabel=label)
        if is_logarithmic:
            panel.set(xscale="log", yscale="log")
            panel.set_xticks(places, [f"{place:g}" for place in places], fontsize=8)
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            panel.minorticks_off()
        else:
            panel.set(xlim=(0, None), ylim=(0, None))
        panel.grid(alpha=0.3)
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
