"""A client of Prometheus's HTTP API, and the variables of dashboard queries."""

import json
import re
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


class QueryError(Exception):
    """Prometheus rejects the query; the message is its own."""


class Prometheus:
    """The HTTP API of a Prometheus.

    Args:
        url: for example `http://127.0.0.1:9090`.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[float]:
        """The present value of each series of an expression."""
        found = self.ask("query", query=expr)
        if found["resultType"] == "scalar":
            return [float(found["result"][1])]
        return [float(each["value"][1]) for each in found["result"]]

    def ask(self, path: str, **parameters: Any) -> Any:
        """Call any endpoint and return its data.

        Raises:
            QueryError: the answer is an error.
        """
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if answer["status"] != "success":
            raise QueryError(answer["error"])
        return answer["data"]


def filled(expr: str, variables: Mapping[str, str]) -> str:
    """Replace the `$variables` of an expression, as Grafana does.

    Raises:
        KeyError: a variable has no value.
    """
    return re.sub(r"\$(\w+)", lambda match: variables[match[1]], expr)


def choices(api: Prometheus, query: str, variables: Mapping[str, str]) -> list[str]:
    """The values of a variable whose query is `label_values(series, label)`."""
    match = _LABEL_VALUES.fullmatch(filled(query, variables))
    if match is None:
        raise QueryError(f"expected label_values(series, label), got {query}")
    found: list[str] = api.ask(f"label/{match[2]}/values", **{"match[]": match[1]})
    return found
