"""The dashboard files: equal to the builder's output, valid, and readable."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard as SdkDashboard

from tests.helpers.dashboards import dashboards, panels
from tools.dashboards import grafana_json
from tools.dashboards.panels import COLOURS, Dashboard
from weir.server.transport.status import CODE_OF

plugins.register_default_plugins()

PAGES = dashboards(grafana_json.FOLDER)
PANELS = [(page["title"], panel) for page in PAGES for panel in panels(page)]
each_panel = pytest.mark.parametrize(
    "panel",
    [panel for _, panel in PANELS],
    ids=[f"{page}, {panel['title']}" for page, panel in PANELS],
)


@pytest.mark.parametrize("dashboard", grafana_json.DASHBOARDS, ids=lambda each: each.name)
def test_file_is_the_builders_output(dashboard: Dashboard) -> None:
    path = grafana_json.FOLDER / f"{dashboard.name}.json"

    assert path.read_text("utf-8") == grafana_json.text_of(dashboard), (
        "run python -m tools.dashboards"
    )


def test_there_are_no_other_files() -> None:
    names = {path.stem for path in grafana_json.FOLDER.iterdir()}

    assert names == {dashboard.name for dashboard in grafana_json.DASHBOARDS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page["title"])
def test_grafanas_own_model_knows_every_field(page: dict[str, Any]) -> None:
    parsed = SdkDashboard.from_json(page)

    again = json.loads(json.dumps(parsed, cls=JSONEncoder))

    assert list(differences(page, again, "dashboard")) == []


def test_unknown_field_is_found() -> None:
    page = copy.deepcopy(PAGES[0])
    page["panels"][1]["options"]["colourMode"] = "value"

    again = json.loads(json.dumps(SdkDashboard.from_json(page), cls=JSONEncoder))

    assert list(differences(page, again, "dashboard")) == ["dashboard.panels.1.options.colourMode"]


def differences(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """Paths of our JSON that a round trip through the SDK changes or drops."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from differences(value, theirs[key], f"{path}.{key}")
            elif value is not None:
                yield f"{path}.{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (own, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(own, other, f"{path}.{index}")
    elif ours != theirs:
        yield path


@each_panel
def test_panel_has_title_description_unit_and_queries(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]


@each_panel
def test_lines_have_distinct_legends(panel: dict[str, Any]) -> None:
    legends = [target["legendFormat"] for target in panel["targets"]]

    assert len(set(legends)) == len(legends)
    assert panel["type"] == "table" or all(legends)
    for target in panel["targets"]:
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        grouped = re.search(r"by \(([\w, ]+)\)", target["expr"])
        if grouped:
            assert named <= set(grouped[1].split(", ")), (
                "a legend names a label that the query drops"
            )


@each_panel
def test_line_of_a_model_links_to_its_dashboard(panel: dict[str, Any]) -> None:
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
def test_declared_variables_are_the_used_ones(page: dict[str, Any]) -> None:
    exprs = [target["expr"] for panel in panels(page) for target in panel["targets"]]
    declared = page["templating"]["list"]
    used = set(
        re.findall(r"\$(\w+)", " ".join([*exprs, *(each["query"]["query"] for each in declared)]))
    )

    assert used - {"__rate_interval"} == {each["name"] for each in declared}


def test_every_status_has_its_own_colour() -> None:
    statuses = {code.name for code in CODE_OF.values()} | {"OK", "INTERNAL"}
    colours = COLOURS["{{status}}"]

    assert statuses <= set(colours)
    assert len(set(colours.values())) == len(colours)


def test_status_has_one_colour_under_both_spellings() -> None:
    camel_case = {
        re.sub(r"_?([A-Z])([A-Z]*)", lambda word: word[1] + word[2].lower(), name).replace(
            "Ok", "OK"
        ): colour
        for name, colour in COLOURS["{{status}}"].items()
    }

    assert camel_case == COLOURS["{{grpc_code}}"]
