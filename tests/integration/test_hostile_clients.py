"""Clients that break HTTP/2's manners: the rows C07 to C13, H02 and H10 of `docs/faults.md`.

Meanwhile and afterwards, a client with a connection of its own is answered right.
"""

import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.helpers import http2_client
from tests.helpers.http2_client import (
    ACK,
    CANCEL,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    ConnectionEnded,
    Frame,
    Http2Client,
    framed,
    grpc_headers,
    indexed,
    literals,
    reference,
)
from tests.integration.conftest import SETTINGS, one_by_transport, running_to_the_end
from tests.integration.harness import (
    ANSWER_S,
    GOOD,
    SERVICE,
    Client,
    Server,
    expect_right_answer,
    request,
)

LIVE = f"/{SERVICE}/ServerLive"
INFER = f"/{SERVICE}/ModelInfer"
STREAM = f"/{SERVICE}/ModelStreamInfer"
WATCH = "/grpc.health.v1.Health/Watch"
OK, CANCELLED, LATE, EXHAUSTED = (
    code.value[0]
    for code in (
        grpc.StatusCode.OK,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
)
MESSAGE = request("affine", GOOD).SerializeToString()

MAX_CONNECTIONS, MAX_BY_PEER = 60, 20
LIMITS = {
    "--default-deadline-s": "1.5",
    "--keepalive-time-s": "1",
    "--keepalive-timeout-s": "2",
    "--max-connection-idle-s": "1",
    "--max-connections": str(MAX_CONNECTIONS),
    "--max-connections-per-peer": str(MAX_BY_PEER),
}
AGE = {"--max-connection-age-s": "1", "--max-connection-age-grace-s": "1"}


@pytest.fixture(scope="session")
def serve_strictly(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Server]]:
    """Gives a server of `models` with short limits on a transport, started at first use."""
    settings = tmp_path_factory.mktemp("settings") / "weir.toml"
    settings.write_text(SETTINGS)
    flags = [part for pair in LIMITS.items() for part in pair]
    with one_by_transport(
        models, tmp_path_factory, "strict", "--config", str(settings), *flags
    ) as serve:
        yield serve


@pytest.fixture
def strict(serve_strictly: Callable[[str], Server], transport: str) -> Iterator[Server]:
    """A server with short limits; another client is answered when the test is over."""
    server = serve_strictly(transport)
    yield server
    expect_answer_on_a_new_connection(server)


@pytest.fixture
def usual(house: Server) -> Iterator[Server]:
    """A server with the default limits; another client is answered when the test is over."""
    yield house
    expect_answer_on_a_new_connection(house)


def expect_answer_on_a_new_connection(server: Server) -> None:
    with Client(server.target) as client:
        expect_right_answer(client)


def address_of(server: Server) -> tuple[str, int]:
    host, port = server.target.split(":")
    return host, int(port)


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + ANSWER_S
    while not is_true():
        assert time.monotonic() < end_s, what
        time.sleep(0.02)


# Metadata


@pytest.mark.parametrize("acknowledges", [True, False], ids=["C07-after-ACK", "C07-without-ACK"])
def test_metadata_over_the_limit_is_refused(usual: Server, *, acknowledges: bool) -> None:
    with Http2Client(usual.target, acknowledges=acknowledges) as client:
        if acknowledges:
            assert client.unary(LIVE, b"").status == OK

        small = client.unary(LIVE, b"", x_long="v" * 12_000)
        large = client.unary(LIVE, b"", x_long="v" * 32_000)
        after = client.unary(LIVE, b"")

    assert (small.status, after.status) == (OK, OK)
    assert large.status == EXHAUSTED


@pytest.mark.parametrize("frames", [pytest.param(300, id="H02-300-frames")])
def test_header_bomb_ends_its_connection_and_harms_nobody(usual: Server, frames: int) -> None:
    """A client that acknowledges no settings may send 16 MiB of headers a call, says gRPC core."""
    head = literals(grpc_headers(LIVE))
    with (
        Client(usual.target) as bystander,
        Http2Client(usual.target, acknowledges=False) as attacker,
    ):
        expect_right_answer(bystander)
        before = usual.memory_bytes()

        with pytest.raises(ConnectionEnded):  # noqa: PT012 - sending is the attack
            first = indexed("x-a", "v" * 3900)
            for _ in range(frames):
                attacker.send_headers(attacker.new_stream(), head + first + reference(0) * 12_000)
                first = b""
            while True:
                attacker.next_frame()
        expect_right_answer(bystander)

    assert usual.memory_bytes() - before < 300 * 1024 * 1024
    usual.wait_for_log("connection closed reason=metadata peer=127.0.0.1")
    assert usual.metric("weir_connections_closed_total", reason="metadata") >= 1


# Connections


NOT_HTTP2 = {
    "HTTP1": b"GET / HTTP/1.1\r\nHost: weir\r\n\r\n",
    # The beginning of a TLS handshake.
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(range(64)) * 4,
    "random": np.random.default_rng(8).bytes(200),
}


@pytest.mark.parametrize("what", NOT_HTTP2, ids=lambda what: f"C08-{what}")
def test_other_protocol_is_closed_and_does_not_fill_the_log(usual: Server, what: str) -> None:
    lines = len(usual.log().splitlines())
    for _ in range(50):
        with socket.create_connection(address_of(usual), ANSWER_S) as connection:
            connection.sendall(NOT_HTTP2[what])
            try:
                while connection.recv(4096):
                    pass
            except ConnectionResetError:
                pass

    assert len(usual.log().splitlines()) < lines + 10


@pytest.mark.parametrize("row", ["C08"])
def test_headers_and_goodbyes_write_no_line_of_the_log(usual: Server, row: str) -> None:
    """Core quotes GOAWAY's text as it is, and grpcio logs a traceback for each such header."""
    block = literals(grpc_headers(LIVE))
    block += b"".join(b"\0" + header for header in (b"\x03x-\x8b\x01v", b"\x01x\x01\xff") * 20)
    block += literals({"te": "none", "grpc-timeout": "never"})
    lines = len(usual.log().splitlines())
    for _ in range(10):
        with Http2Client(usual.target) as client:
            client.send_headers(client.new_stream(), block, END_HEADERS | END_STREAM)
            client.send_frame(GOAWAY, 0, 0, bytes(7) + b"\2" + b"\nforged line\n" * 100)
            client.ping()
            assert any(frame.kind == PING and frame.flags & ACK for frame in client.frames())

    log = usual.log()
    assert "forged" not in log
    assert "Traceback" not in log
    assert len(log.splitlines()) < lines + 10


@pytest.mark.parametrize("row", ["C09"])
def test_silent_connections_are_closed_at_the_handshake_timeout(usual: Server, row: str) -> None:
    with Client(usual.target) as bystander, ExitStack() as stack:
        expect_right_answer(bystander)
        before = usual.descriptors()
        silent = [
            stack.enter_context(socket.create_connection(address_of(usual), ANSWER_S))
            for _ in range(300)
        ]
        for connection in silent[::2]:
            connection.sendall(b"PRI * HT")
        wait_until(lambda: usual.descriptors() >= before + 300, "accepted")

        expect_right_answer(bystander)
        assert usual.metrics_text()
        wait_until(lambda: usual.descriptors() <= before + 5, "closed")

        for connection in silent:
            while connection.recv(4096):
                pass


@pytest.mark.parametrize("row", ["H10"])
def test_number_of_connections_is_limited(strict: Server, row: str) -> None:
    # Loopback has many addresses: the limit of one peer is not met.
    hosts = [f"127.0.0.{number}" for number in range(2, 9)]
    with Client(strict.target) as bystander, ExitStack() as stack:
        # With an open call, the connection is not idle: there would be no place for another one.
        watch = bystander.watch()
        assert next(watch) == "SERVING"
        stack.callback(watch.cancel)
        before = strict.descriptors()
        for number in range(2 * MAX_CONNECTIONS):
            source = (hosts[number % len(hosts)], 0)
            stack.enter_context(
                socket.create_connection(address_of(strict), ANSWER_S, source_address=source)
            )
            assert strict.descriptors() <= before + MAX_CONNECTIONS + 3

        expect_right_answer(bystander)
        assert strict.metrics_text()
    # For the next test: those of this one count until core has closed them.
    wait_until(lambda: strict.descriptors() <= before + 3, "closed")


@pytest.mark.parametrize("row", ["H10"])
def test_connections_of_one_peer_are_limited(strict: Server, row: str) -> None:
    reason = {"reason": "peer_limit"}
    closed = strict.metric("weir_connections_closed_total", **reason)

    def some_are_closed() -> bool:
        """Open more than the limit for a while: core closes silent connections after 5 s."""
        with ExitStack() as stack:
            for _ in range(MAX_BY_PEER + 5):
                stack.enter_context(
                    socket.create_connection(
                        address_of(strict), ANSWER_S, source_address=("127.0.0.9", 0)
                    )
                )
            end_s = time.monotonic() + 3
            while time.monotonic() < end_s:
                if strict.metric("weir_connections_closed_total", **reason) > closed:
                    return True
                time.sleep(0.02)
        return False

    with Client(strict.target) as bystander:
        expect_right_answer(bystander)
        wait_until(some_are_closed, "the newest are closed")
        expect_right_answer(bystander)


@pytest.mark.parametrize("row", ["H10"])
def test_idle_connection_is_told_to_go(strict: Server, row: str) -> None:
    with Http2Client(strict.target) as client:
        assert client.unary(LIVE, b"").status == OK

        goodbye = client.wait_for_end()

    assert goodbye is not None and b"idle" in goodbye.payload


@pytest.mark.parametrize("row", ["C10"])
def test_old_connection_is_closed_after_its_grace(
    few: Path, tmp_path: Path, flags: tuple[str, ...], row: str
) -> None:
    age = [part for pair in AGE.items() for part in pair]
    # A connection that waited for the server to be ready would be closed, too.
    with running_to_the_end(few, tmp_path / "log", *flags, *age, ready=False) as server:
        server.wait_for_log("server ready")
        with Http2Client(server.target) as client:
            client.call(WATCH, b"")

            goodbye = client.wait_for_end()

        assert goodbye is not None
        expect_answer_on_a_new_connection(server)


# Slow clients


@pytest.mark.parametrize("row", ["C10"])
def test_slow_sender_is_late(strict: Server, row: str) -> None:
    message = framed(MESSAGE)
    with Http2Client(strict.target, timeout_s=0.1) as client:
        stream = client.call(INFER)
        end_s = time.monotonic() + ANSWER_S
        sent = 0
        while True:
            assert time.monotonic() < end_s
            if sent < len(message) - 1:
                client.send_data(stream, message[sent : sent + 1])
                sent += 1
            try:
                answer = client.answer(stream)
                break
            except TimeoutError:
                continue

    assert answer.status == LATE


@pytest.mark.parametrize("row", ["C10"])
def test_answer_that_is_not_read_is_dropped(strict: Server, row: str) -> None:
    with Http2Client(strict.target, settings={INITIAL_WINDOW_SIZE: 0}) as client:
        # Without an open call, the connection would be idle, and be closed first.
        client.call(WATCH, b"")
        stream = client.call(INFER, MESSAGE)

        answer = client.answer(stream)

    assert answer.body == b""
    assert answer.reset == CANCEL or answer.status == CANCELLED


@pytest.mark.parametrize("row", ["C12"])
def test_client_that_vanished_is_given_up_and_its_request_leaves(strict: Server, row: str) -> None:
    waiting = request("patient", GOOD).SerializeToString()
    with Http2Client(strict.target, answers_pings=False) as client:
        client.call(INFER, waiting, grpc_timeout="1H")
        strict.wait_for_metric(1, "weir_queue_requests", model="patient")

        client.wait_for_end()

    strict.wait_for_metric(0, "weir_queue_requests", model="patient")


STOPPED_CLIENT = """
import sys, grpc
channel = grpc.insecure_channel(sys.argv[1])
call = channel.unary_unary(sys.argv[2]).future(bytes.fromhex(sys.argv[3]), timeout=3600)
call.result()
"""


@pytest.mark.parametrize("row", ["C12"])
def test_stopped_client_is_given_up_and_its_request_leaves(strict: Server, row: str) -> None:
    waiting = request("patient", GOOD).SerializeToString()
    arguments = (STOPPED_CLIENT, strict.target, INFER, waiting.hex())
    client = subprocess.Popen([sys.executable, "-c", *arguments], stderr=subprocess.DEVNULL)
    try:
        strict.wait_for_metric(1, "weir_queue_requests", model="patient")
        client.send_signal(signal.SIGSTOP)

        strict.wait_for_metric(0, "weir_queue_requests", model="patient")
    finally:
        client.kill()
        client.wait()


@pytest.mark.parametrize("row", ["C12"])
def test_reset_that_comes_with_a_call_is_noticed(strict: Server, row: str) -> None:
    """Core reads the frames and misses the reset behind them; only a ping tells it."""
    call = bytes(Frame(HEADERS, END_HEADERS, 1, literals(grpc_headers(STREAM))))
    before = strict.descriptors()
    began = started_calls(strict, "ModelStreamInfer")
    clients = [socket.create_connection(address_of(strict), ANSWER_S) for _ in range(5)]
    for client in clients:
        client.sendall(PREFACE + bytes(Frame(http2_client.SETTINGS, 0, 0, b"")))
        assert client.recv(1)
    # Within the second after which the server would tell them to go.
    strict.process.send_signal(signal.SIGSTOP)
    try:
        for client in clients:
            client.sendall(call)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
    finally:
        strict.process.send_signal(signal.SIGCONT)

    # Not all: by chance core reads a reset with its call, and then there was no call.
    wait_until(lambda: started_calls(strict, "ModelStreamInfer") > began, "calls have begun")
    wait_until(lambda: strict.descriptors() <= before, "every descriptor is closed")
    wait_until(lambda: open_calls(strict, "ModelStreamInfer") == 0, "every call has ended")


# Floods


@pytest.mark.parametrize("row", ["C11"])
def test_rapid_resets_leave_no_open_call(usual: Server, row: str) -> None:
    block = literals(grpc_headers(INFER))
    with Client(usual.target) as bystander, Http2Client(usual.target) as attacker:
        expect_right_answer(bystander)
        for round_ in range(100):
            frames = b""
            for _ in range(100):
                stream = attacker.new_stream()
                frames += bytes(Frame(HEADERS, END_HEADERS, stream, block))
                frames += bytes(Frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
            try:
                attacker.send(frames)
            except ConnectionEnded:
                break
            if round_ % 25 == 0:
                expect_right_answer(bystander)
        expect_right_answer(bystander)

    wait_until(lambda: open_calls(usual) == 0, "every call has ended")


def started_calls(server: Server, name: str) -> float:
    return server.metric("grpc_server_started_total", grpc_method=name)


def open_calls(server: Server, name: str = "ModelInfer") -> float:
    ended = server.metric("grpc_server_handled_total", grpc_method=name)
    return started_calls(server, name) - ended


@pytest.mark.parametrize("row", ["C13"])
def test_flood_of_pings_ends_the_connection(usual: Server, row: str) -> None:
    with Http2Client(usual.target) as client:
        client.send(bytes(Frame(PING, 0, 0, bytes(8))) * 20)

        goodbye = client.wait_for_end()

    assert goodbye is not None and b"too_many_pings" in goodbye.payload
