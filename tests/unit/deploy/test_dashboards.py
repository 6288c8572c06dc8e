"""The dashboards as files: what the description makes, and what whoever reads them needs."""

import re
from typing import Any

import pytest

from deploy.grafana import build
from deploy.grafana.panels import COLOURS, Dashboard
from deploy.grafana.queries import dashboards, panels
from weir.server.transport.status import CODE_OF

PAGES = dashboards(build.FOLDER)
PANELS = [(page["title"], panel) for page in PAGES for panel in panels(page)]
each_panel = pytest.mark.parametrize(
    "panel",
    [panel for _, panel in PANELS],
    ids=[f"{page}, {panel['title']}" for page, panel in PANELS],
)


@pytest.mark.parametrize("dashboard", build.DASHBOARDS, ids=lambda each: each.name)
def test_file_is_what_the_description_makes(dashboard: Dashboard) -> None:
    path = build.FOLDER / f"{dashboard.name}.json"

    assert path.read_text("utf-8") == build.text_of(dashboard), "run python -m deploy.grafana.build"


def test_there_are_no_other_files() -> None:
    names = {path.stem for path in build.FOLDER.iterdir()}

    assert names == {dashboard.name for dashboard in build.DASHBOARDS}


@each_panel
def test_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]


@each_panel
def test_lines_are_told_apart(panel: dict[str, Any]) -> None:
    legends = [target["legendFormat"] for target in panel["targets"]]

    assert len(set(legends)) == len(legends)
    assert panel["type"] == "table" or all(legends)
    for target in panel["targets"]:
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        grouped = re.search(r"by \(([\w, ]+)\)", target["expr"])
        if grouped:
            assert named <= set(grouped[1].split(", ")), (
                "a legend names a label that is summed away"
            )


@each_panel
def test_a_models_line_leads_to_the_model(panel: dict[str, Any]) -> None:
    names_models = any(
        target["legendFormat"].startswith("{{model}}") for target in panel["targets"]
    )

    links = panel["fieldConfig"]["defaults"].get("links", [])

    assert [link["url"].split("?")[0] for link in links] == ["/d/weir-model"] * names_models


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page["title"])
def test_panels_do_not_overlap(page: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + across, place["y"] + down)
            for across in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in page["panels"]}) == len(page["panels"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page["title"])
def test_variables_are_those_that_queries_use(page: dict[str, Any]) -> None:
    exprs = [target["expr"] for panel in panels(page) for target in panel["targets"]]
    declared = page["templating"]["list"]
    used = set(
        re.findall(r"\$(\w+)", " ".join([*exprs, *(each["query"]["query"] for each in declared)]))
    )

    assert used - {"__rate_interval"} == {each["name"] for each in declared}


def test_every_status_has_a_colour_of_its_own() -> None:
    statuses = {code.name for code in CODE_OF.values()} | {"OK", "INTERNAL"}
    colours = COLOURS["{{status}}"]

    assert statuses <= set(colours)
    assert len(set(colours.values())) == len(colours)


def test_status_is_coloured_alike_under_both_names() -> None:
    camel_case = {
        re.sub(r"_?([A-Z])([A-Z]*)", lambda word: word[1] + word[2].lower(), name).replace(
            "Ok", "OK"
        ): colour
        for name, colour in COLOURS["{{status}}"].items()
    }

    assert camel_case == COLOURS["{{grpc_code}}"]
