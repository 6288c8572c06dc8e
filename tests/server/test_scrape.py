"""The port of `/metrics`, asked over HTTP."""

from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Gauge

from server import scrape


@pytest.fixture
def port() -> Iterator[int]:
    registry = CollectorRegistry()
    Gauge("level", "Of the water.", registry=registry).set(3)
    server = scrape.listen(0, "127.0.0.1", registry)
    yield server.server_port
    server.shutdown()
    server.server_close()


def get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name[]=level"])
def test_metrics_are_at_their_path(port: int, path: str) -> None:
    status, body = get(port, path)

    assert status == 200 and "level 3.0" in body


def test_the_root_names_the_path(port: int) -> None:
    assert get(port, "/") == (200, "weir: metrics are at /metrics\n")


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "/metrics/x", "/favicon.ico"])
def test_any_other_path_is_not_found(port: int, path: str) -> None:
    status, body = get(port, path)

    assert status == 404 and "/metrics" in body and "level" not in body
