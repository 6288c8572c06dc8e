"""What a dashboard is made of, as plain values; `build` makes Grafana's JSON of them.

A panel's `meaning` is what whoever is woken by an alert reads under its "i": what is drawn, and what a
rise of it says.
"""

from dataclasses import dataclass
from typing import Literal

GREEN, YELLOW, ORANGE, RED = "#73BF69", "#F2CC0C", "#FF9830", "#E02F44"
BLUE, LIGHT_BLUE, PALE_BLUE, PURPLE = "#5794F2", "#8AB8FF", "#C0D8FF", "#B877D9"
GREY, BROWN = "#8E8E8E", "#A16946"

COLOURS = {
    "{{status}}": {
        "OK": GREEN,
        "INVALID_ARGUMENT": BLUE,
        "NOT_FOUND": LIGHT_BLUE,
        "UNIMPLEMENTED": PALE_BLUE,
        "FAILED_PRECONDITION": BROWN,
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
"""By a query's legend: the colours of its lines, the same on every dashboard. Other lines get any."""

Step = tuple[float, str]
GOOD_BELOW: dict[str, tuple[Step, ...]] = {
    "nothing": ((0, GREEN), (1, RED)),
    "budget": ((0, GREEN), (0.001, ORANGE), (0.0144, RED)),
    "limit": ((0, GREEN), (0.5, ORANGE), (0.8, RED)),
    "burn rate": ((0, GREEN), (14.4, RED)),
}
"""Colours from a value on: of counts that should be zero, of shares of failures, of what is full at 1, and so on."""


@dataclass(frozen=True, slots=True)
class Query:
    """One expression, and how its lines are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture.

    Args:
        unit: Grafana's name of it.
        steps: colours from a value on, for a `stat`; drawn as lines in a `timeseries`.
        words: what a value of a `stat` is called.
        no_value: said in place of "No data" where emptiness is in order.
    """

    title: str
    meaning: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "heatmap", "table"] = "timeseries"
    width: int = 8
    is_stacked: bool = False
    steps: tuple[Step, ...] = ()
    words: tuple[tuple[float, str], ...] = ()
    shows_name: bool = False
    no_value: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels on one subject, side by side; what does not fit into 24 columns goes below."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """What a reader chooses at the top: a label's values, one or several of them."""

    name: str
    query: str
    is_multiple: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page; `name` is its file's, and its address is `weir-<name>`."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
