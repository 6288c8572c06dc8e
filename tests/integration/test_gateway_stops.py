"""Gateways and servers that stop or are killed under load, and how their callers fare."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

import weir
from tests.helpers.ports import free_port
from tests.helpers.waiting import wait_until
from tests.integration.conftest import running_to_the_end
from tests.integration.gateway_world import (
    AFFINE,
    BURN,
    CLOSE,
    INFER,
    Gateway,
    grpc_caller,
    http_caller,
    running_gateway,
    write_world,
)
from tests.integration.generation import publish_endless
from tests.integration.harness import ANSWER_S, Server, running
from tests.integration.raw_http import RawClient, ask, get, post

pytestmark = pytest.mark.timeout(300)

PATIENT = post("/v2/models/patient/infer", AFFINE, "X-Request-Timeout: 3600")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_world(tmp_path_factory.mktemp("world"))
    publish_endless(root)
    return root


@pytest.fixture(scope="module")
def server(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running_to_the_end(world, log, "--config", str(world / "weir.toml")) as server:
        yield server


def load_until_closed(address: str, codes: list[int]) -> None:
    """Send requests, each on a connection of its own, until the gateway is gone."""
    with suppress(OSError, AssertionError):
        while True:
            codes.append(ask(address, post(INFER, AFFINE, CLOSE)).code)


def test_killed_gateway_harms_no_grpc_caller_and_leaves_no_call(
    server: Server, tmp_path: Path
) -> None:
    codes: list[int] = []
    with (
        grpc_caller(server.target),
        running_gateway(server.target, tmp_path, exit_code=None) as gateway,
        ThreadPoolExecutor(5) as pool,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(RawClient(gateway.address)) for _ in range(3)]
        for client, body in zip(clients, (AFFINE, BURN, BURN), strict=True):
            model = "patient" if body is AFFINE else "burner"
            client.send(post(f"/v2/models/{model}/infer", body, "X-Request-Timeout: 3600"))
        server.wait_for_metric(1, "weir_queue_requests", model="patient")
        server.wait_for_metric(1, "weir_running_requests", model="burner")
        for _ in range(5):
            pool.submit(load_until_closed, gateway.address, codes)
        wait_until(lambda: len(codes) > 50, "no load")

        gateway.process.kill()

        for client in clients:
            assert client.wait_for_end() == b""
        for metric in ("weir_queue_requests", "weir_running_requests"):
            for model in ("patient", "burner"):
                server.wait_for_metric(0, metric, model=model)
    assert set(codes) == {200}


def test_killed_server_is_unavailable_in_time_and_found_again(world: Path, tmp_path: Path) -> None:
    port = str(free_port())
    with (
        running(world, tmp_path / "first.log", "--port", port) as server,
        running_gateway(server.target, tmp_path) as gateway,
        RawClient(gateway.address) as waiting,
    ):
        with http_caller(gateway.address):
            waiting.send(post("/v2/models/burner/infer", BURN, "X-Request-Timeout: 3600"))
            server.wait_for_metric(1, "weir_running_requests", model="burner")

        server.kill()

        assert waiting.answer().code == 503
        for data in (post(INFER, AFFINE), get("/v2"), get("/v2/health/ready")):
            started_s = time.monotonic()
            answer = ask(gateway.address, data)
            assert answer.code == 503
            assert isinstance(answer.json, dict)
            assert time.monotonic() - started_s < ANSWER_S / 2
        with running(world, tmp_path / "second.log", "--port", port):
            wait_until(
                lambda: ask(gateway.address, post(INFER, AFFINE)).code == 200,
                "the gateway does not find the server again",
            )
            with http_caller(gateway.address):
                pass


def test_stopped_gateway_finishes_open_requests_and_takes_no_new_ones(
    server: Server, tmp_path: Path
) -> None:
    with (
        grpc_caller(server.target),
        running_gateway(server.target, tmp_path) as gateway,
        RawClient(gateway.address) as idle,
        RawClient(gateway.address) as open_,
        RawClient(gateway.address) as half,
    ):
        idle.send(get("/v2"))
        assert idle.answer().code == 200
        open_.send(PATIENT)
        half.send(post(INFER, AFFINE)[:-1])
        server.wait_for_metric(1, "weir_queue_requests", model="patient")

        gateway.process.send_signal(signal.SIGTERM)

        assert idle.wait_for_end() == b""
        wait_until(lambda: is_refused(gateway), "the gateway takes new connections")
        half.send(AFFINE[-1:])
        assert half.answer().code == 200
        complete_batch(server)
        answer = open_.answer()
        assert answer.json["outputs"][0]["data"] == [1, 3, 5, 7]
        assert answer.headers["connection"] == "close"
        assert gateway.process.wait(ANSWER_S) == 0


def is_refused(gateway: Gateway) -> bool:
    host, port = gateway.address.split(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
        return True
    return False


def complete_batch(server: Server) -> None:
    """Send the second row of the patient model's batch, by gRPC."""
    with weir.Client(server.target) as client:
        client.infer("patient", {"x": np.zeros((1, 4), np.float32)})


def test_requests_open_at_the_end_of_the_grace_are_answered(server: Server, tmp_path: Path) -> None:
    with (
        grpc_caller(server.target),
        running_gateway(server.target, tmp_path, "--grace", "0.5") as gateway,
        RawClient(gateway.address) as open_,
        RawClient(gateway.address) as half,
        RawClient(gateway.address) as unread,
        RawClient(gateway.address) as late,
    ):
        open_.send(PATIENT)
        half.send(post(INFER, AFFINE)[:-1])
        late.send(b"GET /v2 HTT")
        server.wait_for_metric(1, "weir_queue_requests", model="patient")

        gateway.process.send_signal(signal.SIGTERM)

        for client in (open_, half):
            answer = client.answer()
            assert (answer.code, answer.json) == (
                503,
                {"error": "the gateway stops", "status": "UNAVAILABLE"},
            )
        for client in (open_, half, unread, late):
            assert client.wait_for_end() == b""
        assert gateway.process.wait(ANSWER_S) == 0
        server.wait_for_metric(0, "weir_queue_requests", model="patient")


def test_second_signal_ends_the_gateway_at_once(server: Server, tmp_path: Path) -> None:
    with (
        grpc_caller(server.target),
        running_gateway(server.target, tmp_path, "--grace", "3600") as gateway,
        RawClient(gateway.address) as client,
    ):
        client.send(PATIENT)
        server.wait_for_metric(1, "weir_queue_requests", model="patient")

        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(gateway), "the gateway takes new connections")
        assert gateway.process.poll() is None
        gateway.process.send_signal(signal.SIGTERM)

        assert gateway.process.wait(ANSWER_S) == 0
        client.wait_for_end()
        server.wait_for_metric(0, "weir_queue_requests", model="patient")


def test_stream_open_at_the_end_of_the_grace_ends_with_an_error(
    server: Server, tmp_path: Path
) -> None:
    body = json.dumps({"text": "z", "max_tokens": 1_000_000}).encode()
    with (
        grpc_caller(server.target),
        running_gateway(server.target, tmp_path, "--grace", "0.2") as gateway,
        RawClient(gateway.address) as client,
    ):
        client.send(post("/v1/models/endless:generate", body, "X-Request-Timeout: 3600"))
        server.wait_for_metric(1, "weir_generation_active_rows", model="endless")

        gateway.process.send_signal(signal.SIGTERM)

        events = client.wait_for_end()
        assert b"event: token" in events
        error = b'event: error\ndata: {"error":"the gateway stops","status":"UNAVAILABLE"}\n\n'
        assert error in events
        # The body is complete: its last chunk is there.
        assert events.endswith(b"\r\n0\r\n\r\n")
        assert gateway.process.wait(ANSWER_S) == 0
        server.wait_for_metric(0, "weir_generation_active_rows", model="endless")
