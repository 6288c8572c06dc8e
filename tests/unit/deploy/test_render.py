"""Dashboards drawn without Grafana and without Prometheus: what is asked is made up."""

import math
from typing import Any

import pytest

from deploy.grafana import build
from deploy.grafana.drawing import Line, said
from deploy.grafana.queries import Series, dashboards, filled, legend, panels
from deploy.grafana.render import place, render

PAGES = dashboards(build.FOLDER)


def lines(panel: dict[str, Any]) -> list[Line]:
    """Two lines that rise and have a gap; of a heat map, two buckets."""
    names = ["0.1", "+Inf"] if panel["type"] == "heatmap" else ["OK", ""]
    times = [float(1_800_000_000 + 15 * step) for step in range(4)]
    return [Line(name, Series({}, times, [0.0, 1.0, math.nan, 2.0])) for name in names]


@pytest.mark.parametrize("ask", [lines, lambda _: []], ids=["data", "no data"])
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page["title"])
def test_every_page_can_be_drawn(page: dict[str, Any], ask: Any) -> None:
    figure = render(list(place([page], [])), ask, (1_800_000_000.0, 1_800_000_060.0))

    titles = {text.get_text() for text in figure.texts}
    assert titles >= {panel["title"] for panel in panels(page) if panel["type"] != "table"}


def test_rows_that_nobody_wants_leave_no_gap() -> None:
    (page,) = (page for page in PAGES if page["uid"] == "weir-overview")
    rows = [panel["title"] for panel in page["panels"] if panel["type"] == "row"]

    placed = list(place([page], rows[1:]))

    assert [each.y for each in placed[1:]] == [1.25] * 8
    assert placed[0].panel["title"] == page["title"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "s", "0"),
        (0.00025, "s", "250 µs"),
        (0.025, "s", "25 ms"),
        (90.0, "s", "1.5 min"),
        (math.inf, "s", "more"),
        (0.995, "percentunit", "99.5 %"),
        (3 * 2**20, "Bps", "3 MiB/s"),
        (1250.0, "reqps", "1.25k/s"),
        (7.0, "none", "7"),
        (math.nan, "reqps", "no data"),
    ],
    ids=str,
)
def test_values_are_said_in_their_unit(value: float, unit: str, text: str) -> None:
    assert said(value, unit) == text


def test_variables_of_a_query_are_filled_in() -> None:
    expr = 'rate(weir_rows_total{model="$model"}[$__rate_interval])'

    assert filled(expr, {"model": "lenet5", "__rate_interval": "1m"}) == (
        'rate(weir_rows_total{model="lenet5"}[1m])'
    )
    with pytest.raises(KeyError):
        filled(expr, {"model": "lenet5"})


def test_a_line_is_called_by_its_labels() -> None:
    assert legend("{{model}} {{version}}", {"model": "lenet5", "version": "2"}) == "lenet5 2"
