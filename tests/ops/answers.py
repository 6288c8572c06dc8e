"""Finds queries of dashboards and rules for which Prometheus has no data."""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.helpers.dashboards import dashboards, panels
from tests.ops.prometheus_api import Prometheus, QueryError, choices, filled

VARIABLES = {
    "weir-model": [{"model": "tagger"}, {"model": "colours"}],
    "weir-generation": [{"model": "speller"}],
}
"""Variable values to try, by dashboard: a panel must have data for at least one."""

EMPTY_PANELS = {
    ("weir-host", "GPU memory utilisation"): "the machine may have no GPU",
    ("weir-host", "GPU utilisation"): "the machine may have no GPU",
}
EMPTY_OPERANDS = {
    'absent(up{job="weir"})': "the server is up",
    "weir_model_loads_total offset 1h": "the server is younger than an hour",
    "weir_tls_certificate_expiry_timestamp_seconds - time() < 14 * 86400": "it serves without TLS",
}
"""Queries that may have no data, with the reason."""


def empty_panels(folder: Path, api: Prometheus) -> Iterator[str]:
    """A line for each panel query and each variable without data."""
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
    """A line for each operand of a rule without data; comparisons are ignored."""
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
        values = [value for expr in exprs for value in api.query(expr)]
    except QueryError as error:
        return str(error)
    has_data = not all(math.isnan(value) for value in values)
    return "" if has_data else "no data"


def operands(expr: str) -> Iterator[str]:
    """The operands of `and`, `or` and `unless` at any depth, without `on (…)`."""
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
    """Split an expression at the joins outside all brackets."""
    start = 0
    for match in _JOIN.finditer(expr):
        before = expr[: match.start()]
        if before.count("(") == before.count(")"):
            yield expr[start : match.start()].strip()
            start = match.end()
    yield expr[start:].strip()


def _closing(expr: str) -> int:
    """Index of the bracket that closes the first one."""
    depth = 0
    for position, character in enumerate(expr):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    return -1
