"""Which queries of dashboards and rules a Prometheus has no answer to."""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from deploy.grafana.queries import Prometheus, Refused, choices, dashboards, filled, panels

VARIABLES = {
    "weir-model": [{"model": "tagger"}, {"model": "colours"}],
    "weir-generation": [{"model": "speller"}],
}
"""By dashboard, the choices of a reader that are tried: a panel must have data for one of them."""

EMPTY_PANELS = {
    ("weir-host", "GPU memory in use"): "there may be no GPU",
    ("weir-host", "GPU busy"): "there may be no GPU",
}
EMPTY_OPERANDS = {
    'absent(up{job="weir"})': "the server is there",
    "weir_model_loads_total offset 1h": "the server is younger than an hour",
}
"""What may be without data, and why."""


def empty_panels(folder: Path, api: Prometheus) -> Iterator[str]:
    """A line for every query of every panel, and of every variable, that no choice gives data for."""
    for dashboard in dashboards(folder):
        page = dashboard["uid"]
        chosen = [_COMMON | choice for choice in VARIABLES.get(page, [{}])]
        for variable in dashboard["templating"]["list"]:
            query = variable["query"]["query"]
            if not all(choices(api, query, choice) for choice in chosen):
                yield f"{page}: ${variable['name']}: {query}"
        for panel in panels(dashboard):
            if (page, panel["title"]) in EMPTY_PANELS:
                continue
            for target in panel["targets"]:
                problem = _problem(api, [filled(target["expr"], choice) for choice in chosen])
                if problem:
                    yield f"{page}: {panel['title']}: {problem}: {target['expr']}"


_COMMON = {"__rate_interval": "10m", "version": ".*", "instance": ".*"}


def empty_rules(exprs: Iterable[str], api: Prometheus) -> Iterator[str]:
    """A line for every part of a rule that has no data, compared or not."""
    for expr in exprs:
        for operand in operands(expr):
            if operand in EMPTY_OPERANDS:
                continue
            problem = _problem(api, [_COMPARISON.sub(r" \1 bool ", operand)])
            if problem:
                yield f"{problem}: {operand}"


_COMPARISON = re.compile(r" (==|!=|>=|<=|>|<) (?!bool)")


def _problem(api: Prometheus, exprs: list[str]) -> str:
    try:
        answers = [series for expr in exprs for series in api.query(expr)]
    except Refused as error:
        return str(error)
    has_data = any(not math.isnan(value) for series in answers for value in series.values)
    return "" if has_data else "no data"


def operands(expr: str) -> Iterator[str]:
    """What `and`, `or` and `unless` join, to any depth; `on (…)` left out."""
    parts = list(_split(expr.strip()))
    if len(parts) > 1:
        for part in parts:
            yield from operands(part)
        return
    (part,) = parts
    if part.startswith("(") and _closing(part) == len(part) - 1:
        yield from operands(part[1:-1])
    else:
        yield part


_JOIN = re.compile(r"\s(?:and|or|unless)\s+(?:on\s*\([^)]*\)\s*)?")


def _split(expr: str) -> Iterator[str]:
    """At the joins outside all brackets."""
    start = 0
    for match in _JOIN.finditer(expr):
        before = expr[: match.start()]
        if before.count("(") == before.count(")"):
            yield expr[start : match.start()].strip()
            start = match.end()
    yield expr[start:].strip()


def _closing(expr: str) -> int:
    """Where the bracket that an expression starts with is closed."""
    depth = 0
    for position, character in enumerate(expr):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    return -1
