"""The parts of a dashboard as plain values; `grafana_json` converts them.

A panel's description states what the panel shows and what a rise means.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from tools.dashboards.promql import quantile

GREEN, YELLOW, ORANGE, RED = "#73BF69", "#F2CC0C", "#FF9830", "#E02F44"
BLUE, LIGHT_BLUE, PALE_BLUE, PURPLE = "#5794F2", "#8AB8FF", "#C0D8FF", "#B877D9"
GREY, BROWN = "#8E8E8E", "#A16946"
PINK, TEAL = "#FFA6B0", "#2F9E8F"

COLOURS = {
    "{{status}}": {
        "OK": GREEN,
        "INVALID_ARGUMENT": BLUE,
        "NOT_FOUND": LIGHT_BLUE,
        "UNIMPLEMENTED": PALE_BLUE,
        "FAILED_PRECONDITION": BROWN,
        "UNAUTHENTICATED": PINK,
        "PERMISSION_DENIED": TEAL,
        "CANCELLED": GREY,
        "RESOURCE_EXHAUSTED": ORANGE,
        "DEADLINE_EXCEEDED": YELLOW,
        "UNAVAILABLE": PURPLE,
        "INTERNAL": RED,
    },
    "{{grpc_code}}": {
        "OK": GREEN,
        "InvalidArgument": BLUE,
        "NotFound": LIGHT_BLUE,
        "Unimplemented": PALE_BLUE,
        "FailedPrecondition": BROWN,
        "Unauthenticated": PINK,
        "PermissionDenied": TEAL,
        "Cancelled": GREY,
        "ResourceExhausted": ORANGE,
        "DeadlineExceeded": YELLOW,
        "Unavailable": PURPLE,
        "Internal": RED,
    },
    "{{reason}}": {
        "invalid_request": BLUE,
        "unknown_model": LIGHT_BLUE,
        "unsupported": PALE_BLUE,
        "model_not_loaded": BROWN,
        "unauthenticated": PINK,
        "permission_denied": TEAL,
        "cancelled": GREY,
        "overloaded": ORANGE,
        "deadline_exceeded": YELLOW,
        "model_not_ready": PURPLE,
        "internal": RED,
        "end": GREEN,
        "limit": BLUE,
        "deadline": YELLOW,
        "failed": RED,
    },
    "p50": {"p50": LIGHT_BLUE},
    "p95": {"p95": ORANGE},
    "p99": {"p99": RED},
}
"""Line colours by the legend of the query, the same on every dashboard."""

Step = tuple[float, str]
THRESHOLDS: dict[str, tuple[Step, ...]] = {
    "nothing": ((0, GREEN), (1, RED)),
    "budget": ((0, GREEN), (0.001, ORANGE), (0.0144, RED)),
    "limit": ((0, GREEN), (0.5, ORANGE), (0.8, RED)),
    "burn rate": ((0, GREEN), (14.4, RED)),
}
"""Threshold steps: each colour applies from its value upwards."""


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and the legend of its lines."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Args:
        unit: Grafana's identifier of the unit.
        steps: thresholds; colours of a `stat`, lines in a `timeseries`.
        value_names: texts that replace the values of a `stat`.
        no_value: text in place of "No data", for a panel that may be empty.
    """

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "heatmap", "table"] = "timeseries"
    width: int = 8
    is_stacked: bool = False
    steps: tuple[Step, ...] = ()
    value_names: tuple[tuple[float, str], ...] = ()
    shows_name: bool = False
    no_value: str = ""


stat = partial(Panel, kind="stat")
heatmap = partial(Panel, kind="heatmap")


def percentiles(histogram: str, where: str = "") -> tuple[Query, ...]:
    """The queries of a histogram's p50, p95 and p99."""
    return tuple(Query(quantile(q / 100, histogram, "", where), f"p{q}") for q in (50, 95, 99))


@dataclass(frozen=True, slots=True)
class Row:
    """Panels on one subject, side by side; they wrap after 24 columns."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that the viewer sets: one or several values of a label."""

    name: str
    query: str
    is_multiple: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; its file is `<name>.json`, its uid `weir-<name>`."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
