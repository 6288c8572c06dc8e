"""Renders dashboards from a Prometheus into one picture, without Grafana.

    python -m deploy.grafana.render overview generation --prometheus http://127.0.0.1:9090 --out page.png

Panels, places and colours are those of the JSON; tables are left out.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from deploy.grafana.drawing import BACKGROUND, PANEL, TEXT, Line, Span, draw, lines_of_names
from deploy.grafana.queries import Json, Prometheus, choices, dashboards, filled, legend

_FOLDER = Path(__file__).parent / "dashboards"
_COLUMNS = 24
_WIDTH_PX, _UNIT_PX, _GAP_PX, _DPI = 1200, 30, 3, 100
_SHADES = 256
_TITLE_PX, _LEFT_PX, _TIMES_PX, _NAMES_PX = 26, 62, 20, 17

Ask = Callable[[Json], list[Line]]
Box = tuple[float, float, float, float]
"""Left, bottom, width, height."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What goes where, in Grafana's units: a panel, or a heading."""

    x: int
    y: float
    width: int
    height: float
    panel: Json


def main(words: Sequence[str] | None = None) -> None:
    """As the command line says, or these words of it."""
    options = _options(words)
    pages = {page["uid"]: page for page in dashboards(_FOLDER)}
    chosen = [pages[f"weir-{name}"] for name in options.page]
    api = Prometheus(options.prometheus)
    end_s = options.end or time.time()
    span_s = (end_s - 60 * options.minutes, end_s)
    variables = _everything(api, chosen) | {"__rate_interval": options.window}

    def ask(panel: Json) -> list[Line]:
        return [
            Line(legend(target["legendFormat"], series.labels), series)
            for target in panel["targets"]
            for series in api.query_range(filled(target["expr"], variables), *span_s, options.step)
        ]

    picture = io.BytesIO()
    figure = render(list(place(chosen, options.without)), ask, span_s)
    figure.savefig(picture, dpi=_DPI, facecolor=BACKGROUND)
    # Of few colours, the file is a third as large.
    Image.open(picture).convert("RGB").quantize(_SHADES, kmeans=4).save(options.out, optimize=True)


def _everything(api: Prometheus, pages: Sequence[Json]) -> dict[str, str]:
    """Every variable with all of its choices, as Grafana joins them."""
    return {
        variable["name"]: "|".join(choices(api, variable["query"]["query"], {}))
        for page in pages
        for variable in page["templating"]["list"]
    }


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", nargs="+", choices=["overview", "generation", "host"])
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--minutes", type=float, default=60.0, help="how much of the past")
    parser.add_argument("--end", type=float, help="until when, in seconds since 1970; default: now")
    parser.add_argument("--step", type=float, default=15.0, help="seconds from point to point")
    parser.add_argument("--window", default="1m", help="what rates are averaged over")
    parser.add_argument("--without", nargs="*", default=[], help="titles of rows to leave out")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(words)


def place(pages: Sequence[Json], without: Sequence[str]) -> Iterator[Placed]:
    """One page below the other, each under its title, rows of tables and rows that nobody wants closed up."""
    top = 0.0
    for page in pages:
        yield Placed(0, top, _COLUMNS, 1.25, {"type": "row", "title": page["title"]})
        top += 1.25
        for panels in _rows(page, without):
            first = min(panel["gridPos"]["y"] for panel in panels)
            for panel in panels:
                at = panel["gridPos"]
                yield Placed(at["x"], top + at["y"] - first, at["w"], at["h"], panel)
            top += max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) - first


def _rows(page: Json, without: Sequence[str]) -> Iterator[list[Json]]:
    rows: dict[str, list[Json]] = {}
    for panel in page["panels"]:
        if panel["type"] == "row":
            row = rows.setdefault(panel["title"], [])
        elif panel["type"] != "table":
            row.append(panel)
    return (panels for title, panels in rows.items() if panels and title not in without)


def render(placed: Sequence[Placed], ask: Ask, span_s: Span) -> Figure:
    """The picture."""
    height = max(each.y + each.height for each in placed) * _UNIT_PX
    figure = Figure(figsize=(_WIDTH_PX / _DPI, height / _DPI))
    for each in placed:
        left, top = each.x * _WIDTH_PX / _COLUMNS + _GAP_PX, height - each.y * _UNIT_PX - _GAP_PX
        width = each.width * _WIDTH_PX / _COLUMNS - 2 * _GAP_PX
        tall = each.height * _UNIT_PX - 2 * _GAP_PX
        box = (left, top - tall, width, tall)
        _title(figure, each.panel, box)
        if each.panel["type"] != "row":
            lines = ask(each.panel)
            axes = figure.add_axes(_inside(figure, box, _margins(each.panel, lines)))
            draw(axes, each.panel, lines, span_s)
    return figure


def _title(figure: Figure, panel: Json, box: Box) -> None:
    """In the upper left corner; of a panel, on ground of its own."""
    width_px, height_px = figure.get_size_inches() * _DPI
    left, bottom, width, height = box
    is_heading = panel["type"] == "row"
    if not is_heading:
        corner = (left / width_px, bottom / height_px)
        ground = Rectangle(corner, width / width_px, height / height_px, color=PANEL, lw=0)
        ground.set_zorder(-1)
        figure.add_artist(ground)
    figure.text(
        (left + 8) / width_px,
        (bottom + height - 7) / height_px,
        panel["title"],
        color=TEXT,
        size=13 if is_heading else 10,
        weight="bold" if is_heading else "normal",
        va="top",
    )


def _inside(figure: Figure, box: Box, margins: tuple[int, int]) -> Box:
    """What is left of a box, in parts of the figure."""
    width_px, height_px = figure.get_size_inches() * _DPI
    left, bottom, width, height = box
    beside, below = margins
    return (
        (left + beside) / width_px,
        (bottom + below) / height_px,
        (width - beside - 12) / width_px,
        (height - below - _TITLE_PX) / height_px,
    )


def _margins(panel: Json, lines: Sequence[Line]) -> tuple[int, int]:
    """Left of a picture, for its values, and below it, for its times and names."""
    if panel["type"] == "stat":
        return 12, 8
    names = lines_of_names(lines) if panel["type"] == "timeseries" else 0
    return _LEFT_PX, _TIMES_PX + 8 + names * _NAMES_PX


if __name__ == "__main__":
    main()
