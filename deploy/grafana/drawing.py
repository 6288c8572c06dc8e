"""Draws one panel, as it stands in a dashboard's JSON, with matplotlib: near enough to what Grafana shows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from deploy.grafana.queries import Json, Series

BACKGROUND, PANEL, TEXT, FAINT = "#111217", "#181B1F", "#CCCCDC", "#34363D"
_LINES = ("#73BF69", "#5794F2", "#F2CC0C", "#FF780A", "#B877D9", "#E02F44", "#8AB8FF", "#37872D")
_HEAT = LinearSegmentedColormap.from_list("heat", [PANEL, "#7A3A0C", "#FF9830", "#FFF3D6"])
_SMALL, _LARGE, _CHARACTERS, _MOST_LINES = 8.5, 19, 56, 5
_STEPS_S = (10, 30, 60, 300, 900, 3600, 4 * 3600, 86_400, 7 * 86_400)


Span = tuple[float, float]
"""From when to when, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series under its name."""

    name: str
    series: Series


def draw(axes: Axes, panel: Json, lines: Sequence[Line], span_s: Span) -> None:
    """A panel's content, into axes that are its alone."""
    axes.set_facecolor(PANEL)
    if any(math.isfinite(value) for line in lines for value in line.series.values):
        _DRAW[panel["type"]](axes, panel, lines)
        if panel["type"] != "stat":
            _times(axes, span_s)
        return
    axes.axis("off")
    text = panel["fieldConfig"]["defaults"].get("noValue", "no data")
    axes.text(0.5, 0.5, text, color=TEXT, size=_SMALL, ha="center", va="center")


def lines_of_names(lines: Sequence[Line]) -> int:
    """How many lines they take; what does not fit into the last goes without a name."""
    return min(_MOST_LINES, -(-len(lines) // names_a_line(lines)))


def names_a_line(lines: Sequence[Line]) -> int:
    """How many names there is place for, one after another."""
    return (
        max(1, min(4, _CHARACTERS // (4 + max(len(line.name) for line in lines)))) if lines else 1
    )


def _stat(axes: Axes, panel: Json, lines: Sequence[Line]) -> None:
    axes.axis("off")
    value = lines[0].series.values[-1]
    colour = _LINES[0]
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    text = said(value, panel["fieldConfig"]["defaults"]["unit"])
    axes.text(0.5, 0.5, text, color=colour, size=_LARGE, ha="center", va="center", weight="bold")


def _timeseries(axes: Axes, panel: Json, lines: Sequence[Line]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    colours = _colours(panel, lines)
    if defaults["custom"]["stacking"]["mode"] == "normal":
        _stack(axes, lines, colours)
    else:
        for line, colour in zip(lines, colours, strict=True):
            axes.plot(line.series.times_s, line.series.values, color=colour, lw=1.3)
    highest = max(v for line in lines for v in line.series.values if math.isfinite(v))
    for step in defaults["thresholds"]["steps"][1:]:
        if (
            defaults["custom"]["thresholdsStyle"]["mode"] == "line"
            and step["value"] < 1.5 * highest
        ):
            axes.axhline(step["value"], color=step["color"], lw=0.8, ls="--")
    axes.set_ylim(bottom=0)
    if highest <= 0:
        axes.set_ylim(top=1)
    _ticks(axes, lambda value: said(value, defaults["unit"]))
    _names(axes, lines, colours)


def _stack(axes: Axes, lines: Sequence[Line], colours: Sequence[str]) -> None:
    times = sorted({time_s for line in lines for time_s in line.series.times_s})
    below = np.zeros(len(times))
    for line, colour in zip(lines, colours, strict=True):
        at = dict(zip(line.series.times_s, line.series.values, strict=True))
        above = below + np.nan_to_num([at.get(time_s, 0.0) for time_s in times])
        axes.fill_between(times, below, above, color=colour, alpha=0.55, lw=0)
        axes.plot(times, above, color=colour, lw=0.8)
        below = above


def _heatmap(axes: Axes, panel: Json, lines: Sequence[Line]) -> None:
    """A row a bucket: of cumulated counts, what each adds to the one below."""
    buckets = sorted(lines, key=lambda line: float(line.name))
    counts = np.diff([np.nan_to_num(line.series.values) for line in buckets], axis=0, prepend=0)
    filled = np.flatnonzero(counts.sum(axis=1) > 0)
    if filled.size:
        buckets, counts = buckets[: filled[-1] + 1], counts[: filled[-1] + 1]
    first = max(0, filled[0] - 1) if filled.size else 0
    times = buckets[0].series.times_s
    rows = np.arange(first, len(buckets))
    norm = PowerNorm(0.5, vmin=0, vmax=max(counts.max(), 1))
    axes.pcolormesh(times, rows, counts[first:], cmap=_HEAT, norm=norm, shading="nearest")
    unit = panel["options"]["yAxis"]["unit"]
    bounds = [said(float(line.name), unit) for line in buckets]
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    _ticks(axes, lambda row: bounds[int(row)] if 0 <= row < len(bounds) else "", ticks=None)
    axes.grid(visible=False)


def _ticks(axes: Axes, label: Callable[[float], str], ticks: int | None = 4) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))
    if ticks:
        axes.yaxis.set_major_locator(MaxNLocator(ticks))
    axes.tick_params(colors=TEXT, labelsize=_SMALL, length=0)
    axes.grid(color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _times(axes: Axes, span_s: Span) -> None:
    axes.set_xlim(span_s)
    length_s = span_s[1] - span_s[0]
    step_s = next((step for step in _STEPS_S if 5 * step >= length_s), _STEPS_S[-1])
    axes.xaxis.set_major_locator(MultipleLocator(step_s))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda time_s, _: _clock(time_s, step_s)))


def _clock(time_s: float, step_s: float) -> str:
    form = "%d %b" if step_s >= 86_400 else "%H:%M" if step_s >= 60 else "%H:%M:%S"
    return datetime.fromtimestamp(time_s, UTC).strftime(form)


def _names(axes: Axes, lines: Sequence[Line], colours: Sequence[str]) -> None:
    """Below the picture, from left to right."""
    named = lines[: _MOST_LINES * names_a_line(lines)]
    handles = [axes.plot([], [], color=colour, lw=4)[0] for colour in colours[: len(named)]]
    axes.legend(
        handles,
        [line.name for line in named],
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.13),
        ncols=names_a_line(lines),
        frameon=False,
        fontsize=_SMALL,
        labelcolor=TEXT,
        handlelength=0.8,
        handletextpad=0.5,
        columnspacing=1.2,
        labelspacing=0.25,
    )


def _colours(panel: Json, lines: Sequence[Line]) -> list[str]:
    fixed = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    }
    return [fixed.get(line.name, _LINES[index % len(_LINES)]) for index, line in enumerate(lines)]


def said(value: float, unit: str) -> str:
    """A value in words, as an axis or a `stat` has it."""
    if math.isnan(value):
        return "no data"
    if unit == "s":
        return _scaled(value, ((3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")))
    if unit == "percentunit":
        return f"{value:.3g}".rstrip(".") if math.isinf(value) else f"{100 * value:.3g} %"
    if unit in ("bytes", "Bps"):
        text = _scaled(value, ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")))
        return text + ("/s" if unit == "Bps" else "")
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value / 1000:.3g}k"
    return text + {"reqps": "/s", "ops": "/s"}.get(unit, "")


def _scaled(value: float, scales: Sequence[tuple[float, str]]) -> str:
    if math.isinf(value):
        return "more"
    for scale, name in scales:
        if abs(value) >= scale:
            return f"{value / scale:.3g}{name}"
    return "0"


_DRAW: dict[str, Callable[[Axes, Json, Sequence[Line]], None]] = {
    "stat": _stat,
    "timeseries": _timeseries,
    "heatmap": _heatmap,
}
