"""The HTTP port of `/metrics`."""

import logging
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge, Metric
from prometheus_client.registry import Collector

from weir.server.telemetry import metrics_http

# Reached only by a test that fails.
HANG_S = 20.0

Listen = Callable[..., int]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """The port of a started server."""
    started: list[metrics_http.ScrapeServer] = []

    def listen(registry: CollectorRegistry | None = None, **own: Any) -> int:
        if registry is None:
            registry = CollectorRegistry()
            Gauge("level", "Of the water.", registry=registry).set(3)
        started.append(metrics_http.listen(0, "127.0.0.1", registry, **own))
        return started[-1].server_port

    yield listen
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def port(listen: Listen) -> int:
    return listen()


@pytest.fixture
def connect() -> Iterator[Callable[..., socket.socket]]:
    """Open a connection."""
    with ExitStack() as stack:
        yield lambda port, host="": stack.enter_context(
            socket.create_connection(("127.0.0.1", port), HANG_S, source_address=(host, 0))
        )


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


def test_start_does_not_look_the_host_name_up(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that does not answer would block the start."""

    def look_up(_name: str = "") -> str:
        raise AssertionError("the host name is looked up")

    monkeypatch.setattr(socket, "getfqdn", look_up)

    assert get(listen(), "/metrics")[0] == 200


def scrapers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "weir-scrape"]


def ended(thread: threading.Thread) -> bool:
    thread.join(HANG_S)
    return not thread.is_alive()


@pytest.mark.parametrize("row", ["G03", "H09"])
def test_silent_scrapers_take_a_bounded_number_of_threads_and_keep_no_other_out(
    port: int, connect: Callable[[int], socket.socket], row: str
) -> None:
    silent = [connect(port) for _ in range(metrics_http.MAX_SCRAPES + 8)]

    assert get(port, "/metrics")[0] == 200
    assert [connection.recv(1) for connection in silent[:9]] == [b""] * 9, "the oldest make room"
    # The thread of a connection that made room ends a little later.
    end_s = time.monotonic() + HANG_S
    while len(scrapers()) > metrics_http.MAX_SCRAPES:
        assert time.monotonic() < end_s, "more threads than connections may be open"
        time.sleep(0.01)
    for connection in silent:
        connection.close()
    assert all(ended(thread) for thread in scrapers())
    assert get(port, "/metrics")[0] == 200


@pytest.mark.parametrize("row", ["H09"])
def test_peer_with_the_most_silent_connections_makes_room(
    port: int, connect: Callable[..., socket.socket], row: str
) -> None:
    first = connect(port)
    others = [connect(port, "127.0.0.2") for _ in range(metrics_http.MAX_SCRAPES - 1)]

    assert get(port, "/metrics")[0] == 200
    assert others[0].recv(1) == b""
    first.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert first.recv(8) == b"HTTP/1.0", "older, of a peer with fewer"


def hold_all_descriptors() -> list[socket.socket]:
    """Sockets on every descriptor that this process may still open."""
    held = []
    with suppress(OSError):
        while True:
            held.append(socket.socket())
    return held


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """A limit of 64 descriptors more than this process has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 64 + max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize("row", ["H09", "F12"])
def test_scrape_is_answered_without_a_free_descriptor(listen: Listen, row: str) -> None:
    port = listen()
    with ExitStack() as stack:
        held = [stack.enter_context(each) for each in hold_all_descriptors()]
        for client in held[:10]:
            client.settimeout(HANG_S)
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")

            assert client.recv(12) == b"HTTP/1.0 200"
            while client.recv(4096):
                pass


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"", id="says nothing"),
        pytest.param(b"GET /metr", id="stops in the middle"),
        pytest.param(b"GET /metrics HTTP/1.0\r\n\r\n", id="never reads"),
    ],
)
def test_scraper_past_its_timeout_is_closed(
    request_bytes: bytes,
    *,
    listen: Listen,
    connect: Callable[[int], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Row G03."""
    monkeypatch.setattr(metrics_http, "MAX_SCRAPES", 1)
    registry = CollectorRegistry()
    registry.register(Many())
    port = listen(registry, timeout_s=0.1)

    with caplog.at_level(logging.INFO):
        connect(port).sendall(request_bytes)
        for _ in range(1000):
            try:
                status, _ = get(port, "/")
                break
            except (OSError, HTTPException):
                threading.Event().wait(HANG_S / 1000)

    assert status == 200
    assert caplog.text == "" and capfd.readouterr().err == ""


def test_connection_without_a_thread_does_not_count_as_open(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_http, "MAX_SCRAPES", 1)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "weir-scrape":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises((OSError, HTTPException)):
            get(port, "/")

    assert get(port, "/")[0] == 200


class Many(Collector):
    """A page larger than the buffers of a connection."""

    def collect(self) -> Iterator[Metric]:
        yield Metric("many", "x" * 32_000_000, "gauge")


class Watched(Collector):
    """Counts concurrent scrapes."""

    def __init__(self) -> None:
        self.now = self.most = self.scrapes = 0

    def collect(self) -> Iterator[Metric]:
        self.now += 1
        self.scrapes += 1
        self.most = max(self.most, self.now)
        yield Metric("watched", "Text. " * 10_000, "gauge")
        self.now -= 1


def test_answers_are_built_one_at_a_time(listen: Listen) -> None:
    watched = Watched()
    registry = CollectorRegistry()
    registry.register(watched)
    port = listen(registry)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: get(port, "/metrics")[0], range(20)))

    assert answers == [200] * 20
    assert (watched.scrapes, watched.most) == (20, 1)


class Broken(Collector):
    def collect(self) -> Iterator[Metric]:
        raise ValueError("a bug")


def test_scrape_that_fails_is_logged_and_the_next_is_answered(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    registry.register(Broken())
    port = listen(registry)

    status, body = get(port, "/metrics")

    assert status == 500 and "bug" not in body
    assert "scrape failed" in caplog.text
    assert get(port, "/")[0] == 200


def test_connection_that_is_ended_before_its_handshake_raises_nothing() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours, theirs = socket.socketpair()
    server = metrics_http.ScrapeServer("127.0.0.1", 0, 1.0)
    request = context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
    request.shutdown(socket.SHUT_RDWR)

    server.process_request_thread(request, ("127.0.0.1", 1))

    assert request.fileno() == -1
    theirs.close()
    server.server_close()
