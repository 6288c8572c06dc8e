"""Grafana's JSON of a dashboard.

The JSON files are committed, because Grafana reads them. A test compares them with this output.
"""

import json
from pathlib import Path
from typing import Any

from tools.dashboards.generation import GENERATION
from tools.dashboards.host import HOST
from tools.dashboards.model import MODEL
from tools.dashboards.overview import OVERVIEW
from tools.dashboards.panels import COLOURS, GREEN, Dashboard, Panel, Row, Variable

DASHBOARDS = (OVERVIEW, MODEL, GENERATION, HOST)
FOLDER = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"

_SCHEMA = 39  # written by Grafana 11, read by Grafana 12 too
_SOURCE = {"type": "prometheus", "uid": "prometheus"}
_COLUMNS = 24
_HEIGHTS = {"stat": 4, "table": 6, "timeseries": 8, "heatmap": 8}

Json = dict[str, Any]

_TO_MODEL: Json = {
    "title": "Dashboard of this model",
    "url": "/d/weir-model?var-model=${__field.labels.model}&${__url_time_range}",
}


def text_of(dashboard: Dashboard) -> str:
    """The content of the dashboard's file."""
    return json.dumps(_dashboard(dashboard), indent=1) + "\n"


def _dashboard(dashboard: Dashboard) -> Json:
    return {
        "uid": f"weir-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["weir"],
        "schemaVersion": _SCHEMA,
        "editable": False,
        "graphTooltip": 1,  # one crosshair shared by all panels
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "links": [_links()],
        "templating": {"list": [_variable(each) for each in dashboard.variables]},
        "annotations": {"list": []},
        "panels": _panels(dashboard.rows),
    }


def _links() -> Json:
    """Links to the other dashboards, which keep the time range and the variables."""
    return {
        "type": "dashboards",
        "title": "Weir",
        "icon": "dashboard",
        "tooltip": "",
        "tags": ["weir"],
        "asDropdown": False,
        "targetBlank": False,
        "includeVars": True,
        "keepTime": True,
    }


def _variable(variable: Variable) -> Json:
    made = {
        "type": "query",
        "name": variable.name,
        "label": variable.name,
        "datasource": _SOURCE,
        "query": {"query": variable.query, "refId": variable.name},
        "refresh": 2,  # on each change of the time range, because models come and go
        "sort": 1,
        "multi": variable.is_multiple,
        "includeAll": variable.is_multiple,
    }
    if variable.is_multiple:
        made["current"] = {"text": ["All"], "value": ["$__all"]}
    return made


def _panels(rows: tuple[Row, ...]) -> list[Json]:
    made: list[Json] = []
    top = 0
    for row in rows:
        position = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        made.append(
            {"type": "row", "id": len(made) + 1, "title": row.title, "collapsed": False}
            | {"gridPos": position, "panels": []}
        )
        left, height, top = 0, 0, top + 1
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                left, height, top = 0, 0, top + height
            height = max(height, _HEIGHTS[panel.kind])
            position = {"x": left, "y": top, "w": panel.width, "h": _HEIGHTS[panel.kind]}
            made.append(_panel(panel, len(made) + 1, position))
            left += panel.width
        top += height
    return made


def _panel(panel: Panel, identity: int, position: Json) -> Json:
    return {
        "type": panel.kind,
        "id": identity,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": position,
        "targets": [
            _target(panel, index, query.expr, query.legend)
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
        **({"transformations": [_hidden_columns()]} if panel.kind == "table" else {}),
    }


def _target(panel: Panel, index: int, expr: str, legend: str) -> Json:
    is_instant = panel.kind in ("stat", "table")
    formats = {"heatmap": "heatmap", "table": "table"}
    return {
        "refId": chr(ord("A") + index),
        "datasource": _SOURCE,
        "expr": expr,
        "legendFormat": legend,
        "format": formats.get(panel.kind, "time_series"),
        "instant": is_instant,
        "range": not is_instant,
    }


def _defaults(panel: Panel) -> Json:
    steps = [
        {"color": colour, "value": value if index else None}
        for index, (value, colour) in enumerate(panel.steps or ((0, GREEN),))
    ]
    names = {str(value): {"text": text} for value, text in panel.value_names}
    made: Json = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [{"type": "value", "options": names}] if names else [],
    }
    if panel.no_value:
        made["noValue"] = panel.no_value
    if any(query.legend.startswith("{{model}}") for query in panel.queries):
        made["links"] = [_TO_MODEL]
    if panel.kind == "timeseries":
        made |= {"min": 0, "color": {"mode": "palette-classic"}, "custom": _lines(panel)}
    if panel.kind == "stat":
        made["color"] = {"mode": "thresholds"}
    return made


def _lines(panel: Panel) -> Json:
    return {
        "lineWidth": 1,
        "fillOpacity": 40 if panel.is_stacked else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
    }


def _overrides(panel: Panel) -> list[Json]:
    if panel.kind != "timeseries":
        return []
    colours: dict[str, str] = {}
    for query in panel.queries:
        colours |= COLOURS.get(query.legend, {})
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in colours.items()
    ]


def _options(panel: Panel) -> Json:
    if panel.kind == "timeseries":
        legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
        return {
            "legend": {**legend, "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if panel.kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "name" if panel.shows_name else "auto",
        }
    if panel.kind == "heatmap":
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "steps": 64},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "tooltip": {"mode": "single", "yHistogram": False},
            "yAxis": {"unit": panel.unit, "axisPlacement": "left"},
        }
    return {"showHeader": True, "cellHeight": "sm"}


def _hidden_columns() -> Json:
    """Hide the columns of a table that hold no information here."""
    return {"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True}}}
