"""The queries of the dashboards, as they stand in the JSON, and what a Prometheus answers to them."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

Json = dict[str, Any]
Labels = dict[str, str]


class Refused(Exception):
    """Prometheus cannot make sense of a query; its own words."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its labels, and its values by time."""

    labels: Labels
    times_s: list[float]
    values: list[float]


class Prometheus:
    """The HTTP API of a Prometheus.

    Args:
        url: as `http://127.0.0.1:9090`.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[Series]:
        """What an expression is now."""
        found = self.ask("query", query=expr)
        if found["resultType"] == "scalar":
            return [_series({}, [found["result"]])]
        return [_series(each["metric"], [each["value"]]) for each in found["result"]]

    def query_range(self, expr: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """What an expression was from one time to another."""
        found = self.ask("query_range", query=expr, start=start_s, end=end_s, step=step_s)
        return [_series(each["metric"], each["values"]) for each in found["result"]]

    def ask(self, path: str, **parameters: Any) -> Any:
        """The data of any answer.

        Raises:
            Refused: it is an error.
        """
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if answer["status"] != "success":
            raise Refused(answer["error"])
        return answer["data"]


def dashboards(folder: Path) -> list[Json]:
    """The files of a folder, read."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]


def panels(dashboard: Json) -> Iterator[Json]:
    """The panels that ask something."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def filled(expr: str, variables: Mapping[str, str]) -> str:
    """An expression as Grafana sends it, its `$variables` replaced.

    Raises:
        KeyError: one of them has no value.
    """
    return re.sub(r"\$(\w+)", lambda match: variables[match[1]], expr)


def choices(api: Prometheus, query: str, variables: Mapping[str, str]) -> list[str]:
    """What a reader can choose from, where a variable's query is `label_values(series, label)`."""
    match = _LABEL_VALUES.fullmatch(filled(query, variables))
    if match is None:
        raise Refused(f"expected label_values(series, label), got {query}")
    found: list[str] = api.ask(f"label/{match[2]}/values", **{"match[]": match[1]})
    return found


_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


def legend(pattern: str, labels: Labels) -> str:
    """How a line is called."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), pattern)


def _series(labels: Labels, pairs: list[tuple[float, str]]) -> Series:
    return Series(labels, [time_s for time_s, _ in pairs], [float(value) for _, value in pairs])
