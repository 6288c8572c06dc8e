"""Clients of the gateway that are slow, greedy, broken or gone, and gateways that are killed.

Beside each of them a gRPC caller calls the server and an HTTP caller the gateway. Every answer of
both is checked, and none may fail.
"""

import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.certificates import Authority
from tests.helpers.waiting import wait_until
from tests.integration.conftest import running_to_the_end
from tests.integration.gateway_world import (
    AFFINE,
    BURN,
    CLOSE,
    INFER,
    MAX_BODY_BYTES,
    Gateway,
    binary_body,
    callers,
    grpc_caller,
    running_gateway,
    write_world,
)
from tests.integration.harness import Server
from tests.integration.raw_http import RawClient, ask, get, post

pytestmark = pytest.mark.timeout(300)

# Times that a test waits for. A client that behaves is far below them.
HASTY = {"receive_s": 1.0, "idle_s": 1.5, "unread_s": 1.0, "linger_s": 0.5}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    world = write_world(tmp_path_factory.mktemp("world"))
    log = tmp_path_factory.mktemp("server") / "log"
    with running_to_the_end(world, log, "--config", str(world / "weir.toml")) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the usual limits, apart from the size of bodies."""
    with running_gateway(server.target, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def hasty(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with short limits of time."""
    with running_gateway(server.target, tmp_path_factory.mktemp("hasty"), limits=HASTY) as gateway:
        yield gateway


@pytest.fixture
def unharmed(server: Server, gateway: Gateway) -> Iterator[Gateway]:
    """The usual gateway, beside two callers that must be answered throughout."""
    with callers(server, gateway):
        yield gateway


@pytest.fixture
def hurried(server: Server, hasty: Gateway) -> Iterator[Gateway]:
    """The hasty gateway, beside two callers that must be answered throughout."""
    with callers(server, hasty):
        yield hasty


# Slow clients


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"", id="from the first byte on"),
        pytest.param(b"GET /v2 HTTP/1.1\r\nHost: gateway\r\nX: ", id="in a header"),
    ],
)
def test_headers_that_trickle_are_refused(hurried: Gateway, start: bytes) -> None:
    with RawClient(hurried.address) as client:
        client.send(start)

        client.trickle(b"GET" + b" /v2" + b"a" * 10_000, 0.02)
        answer = client.answer()

        assert answer.code == 408
        assert answer.json["status"] == "DEADLINE_EXCEEDED"
        assert client.wait_for_end() == b""


@pytest.mark.parametrize("length", ["Content-Length: 9999", "Transfer-Encoding: chunked"])
def test_body_that_trickles_is_refused(hurried: Gateway, length: str) -> None:
    with RawClient(hurried.address) as client:
        client.send(
            b"POST %b HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % (INFER.encode(), length.encode())
        )
        if "chunked" in length:
            client.send(b"270f\r\n")

        client.trickle(b"x" * 9998, 0.02)

        assert client.answer().code == 408
        assert client.wait_for_end() == b""


def test_body_that_never_comes_is_refused(hurried: Gateway) -> None:
    with RawClient(hurried.address) as client:
        client.send(post(INFER, AFFINE)[:-1])

        assert client.answer().code == 408


@pytest.mark.parametrize("greeting", [b"", b"\r\n"], ids=["silent", "empty lines"])
def test_connection_without_a_request_is_closed(hurried: Gateway, greeting: bytes) -> None:
    with RawClient(hurried.address) as client:
        if greeting:
            client.trickle(greeting * 10_000, 0.02)

        assert client.wait_for_end() == b""


def test_kept_connection_that_idles_is_closed(hurried: Gateway) -> None:
    with RawClient(hurried.address) as client:
        client.send(get("/v2"))

        assert client.answer().code == 200
        assert client.wait_for_end() == b""


def test_client_that_does_not_read_its_answer_is_cut_off(hurried: Gateway) -> None:
    values = np.zeros((1, MAX_BODY_BYTES // 4 - 1000), np.float32)
    body = binary_body("echo", values)
    before = hurried.memory_bytes()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(RawClient(hurried.address, receive_bytes=4096)) for _ in range(20)
        ]
        for client in clients:
            client.send(body)
        got = []
        for client in clients:
            wait_until(partial(is_closed, client), "the gateway waits for ever")
            got.append(len(client.wait_for_end()))

    assert max(got) < values.nbytes
    # The budget of all bodies is eight of the largest; requests and answers have several copies.
    assert hurried.memory_bytes() - before < 40 * MAX_BODY_BYTES


def is_closed(client: RawClient) -> bool:
    """Whether the peer has reset the connection, seen without reading from it."""
    try:
        client.socket.send(b"x")
    except ConnectionError:
        return True
    return False


# Clients that leave


@pytest.mark.parametrize("leave", ["close", "reset", "half-close"])
def test_client_that_leaves_cancels_its_request(
    unharmed: Gateway, server: Server, leave: str
) -> None:
    for model, body, metric in (
        ("patient", AFFINE, "weir_queue_requests"),
        ("burner", BURN, "weir_running_requests"),
    ):
        with RawClient(unharmed.address) as client:
            client.send(post(f"/v2/models/{model}/infer", body, "X-Request-Timeout: 3600"))
            server.wait_for_metric(1, metric, model=model)

            if leave == "reset":
                client.reset()
            elif leave == "half-close":
                client.socket.shutdown(socket.SHUT_WR)
            else:
                client.socket.close()

            server.wait_for_metric(0, metric, model=model)


def test_client_that_leaves_behind_requests_cancels_all_of_them(
    unharmed: Gateway, server: Server
) -> None:
    with RawClient(unharmed.address) as client:
        waiting = post("/v2/models/patient/infer", AFFINE, "X-Request-Timeout: 3600")
        client.send(waiting)
        server.wait_for_metric(1, "weir_queue_requests", model="patient")
        client.send(get("/v2") * 10 + b"GARBAGE\r\n\r\n" + waiting)
        client.reset()

        server.wait_for_metric(0, "weir_queue_requests", model="patient")


def test_clients_that_reset_anywhere_harm_nothing(unharmed: Gateway) -> None:
    whole = post(INFER, AFFINE) + get("/v2")
    for end in range(0, len(whole), 3):
        client = RawClient(unharmed.address)
        client.send(whole[:end])
        client.reset()


# Many requests, many connections


def test_thousand_requests_in_one_packet_are_answered_in_order(unharmed: Gateway) -> None:
    with RawClient(unharmed.address) as client:
        client.send((get("/v2/health/live") + get("/nothing")) * 500)

        codes = [client.answer().code for _ in range(1000)]

        assert codes == [200, 404] * 500


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(b"GARBAGE\r\n\r\n", id="no HTTP"),
        pytest.param(b"GET /v2 HTTP/1.1\r\nX: " + b"a" * 600_000, id="headers too large"),
        pytest.param(b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="chunk"),
    ],
)
def test_refused_bytes_do_not_overtake_an_open_answer(
    unharmed: Gateway, server: Server, refused: bytes
) -> None:
    slow = post("/v2/models/patient/infer", AFFINE)
    with RawClient(unharmed.address) as client:
        client.send(slow + refused)
        server.wait_for_metric(1, "weir_queue_requests", model="patient")
        # The second row of the batch lets it run.
        assert ask(unharmed.address, slow).code == 200

        answer = client.answer()

        assert answer.code == 200
        assert answer.json["outputs"][0]["data"] == [1, 3, 5, 7]
        assert client.wait_for_end() == b""


def test_thousand_idle_and_thousand_half_open_connections_harm_nobody(
    server: Server, gateway: Gateway
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"needs 4096 open files, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        with ExitStack() as stack, callers(server, gateway):
            clients = [stack.enter_context(RawClient(gateway.address)) for _ in range(2000)]
            for client in clients[:1000]:
                client.send(post(INFER, AFFINE)[:-1])
            wait_until(lambda: gateway.descriptors() > 2000, "not all connections are accepted")

            assert ask(gateway.address, get("/v2")).code == 200
            for client in clients[:1000]:
                client.send(AFFINE[-1:])
            assert all(client.answer().code == 200 for client in clients[:1000])
        wait_until(lambda: gateway.descriptors() < 100, "connections are left open")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_connections_close_those_that_wait(server: Server, tmp_path: Path) -> None:
    files = {"files": 160}
    with (
        running_gateway(server.target, tmp_path, limits=files) as gateway,
        callers(server, gateway),
        ExitStack() as stack,
    ):
        waiting = stack.enter_context(RawClient(gateway.address))
        waiting.send(post("/v2/models/patient/infer", AFFINE))
        server.wait_for_metric(1, "weir_queue_requests", model="patient")
        idle = [stack.enter_context(RawClient(gateway.address)) for _ in range(400)]

        # The newest connections are served, the oldest idle ones closed, the busy ones kept.
        assert ask(gateway.address, get("/v2")).code == 200
        assert idle[0].wait_for_end() == b""
        assert ask(gateway.address, post("/v2/models/patient/infer", AFFINE)).code == 200
        assert waiting.answer().code == 200


def test_connections_beyond_the_limit_of_busy_ones_are_refused(
    server: Server, tmp_path: Path
) -> None:
    with (
        running_gateway(server.target, tmp_path, limits={"connections": 5}) as gateway,
        grpc_caller(server.target),
        ExitStack() as stack,
    ):
        for _ in range(5):
            client = stack.enter_context(RawClient(gateway.address))
            client.send(post("/v2/models/patient_full/infer", AFFINE))
        server.wait_for_metric(5, "weir_queue_requests", model="patient_full")

        answer = ask(gateway.address, get("/v2"))

        assert (answer.code, answer.json["status"]) == (503, "UNAVAILABLE")
        stack.close()
        server.wait_for_metric(0, "weir_queue_requests", model="patient_full")
        wait_until(lambda: ask(gateway.address, get("/v2", CLOSE)).code == 200, "it stays full")


def test_handshakes_that_never_end_harm_nobody(server: Server, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    own = authority.issue("127.0.0.1")
    flags = ("--tls-cert", str(own.cert), "--tls-key", str(own.key))
    context = ssl.create_default_context(cafile=str(authority.ca))
    with (
        running_gateway(server.target, tmp_path, *flags, limits={"files": 160}) as gateway,
        grpc_caller(server.target),
        ExitStack() as stack,
    ):
        for start in (
            b"",
            b"\x16\x03\x01\x02\x00\x01",
            b"GET /v2 HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01",
        ):
            for _ in range(100):
                client = stack.enter_context(RawClient(gateway.address))
                client.send(start)
        used_s, started_s = gateway.cpu_s(), time.monotonic()
        time.sleep(1)
        # A listener without descriptors must not turn in circles.
        assert gateway.cpu_s() - used_s < 0.5 * (time.monotonic() - started_s)
        stack.close()

        def is_answered() -> bool:
            with suppress(OSError, AssertionError), RawClient(gateway.address, tls=context) as own:
                own.send(get("/v2", CLOSE))
                return own.answer().code == 200
            return False

        wait_until(is_answered, "the gateway accepts no more")
