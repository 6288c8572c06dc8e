"""The process under faults of its host: killed, stopped, slowed, few files, wrong settings."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.helpers.http2_client import PREFACE, SETTINGS, Frame
from tests.helpers.ports import free_port
from tests.integration.harness import (
    ANSWER_S,
    FOR_EVER,
    GOOD,
    SERVICE,
    Client,
    Server,
    Tensor,
    X,
    burn,
    command,
    failure,
    request,
    running,
    tensor,
)

OK = grpc.StatusCode.OK
LATE = grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@contextmanager
def supervised(models: Path, log: Path, *flags: str) -> Iterator[list[Server]]:
    """A server that is started again when it ends; all of them, the last one is the newest."""
    servers: list[Server] = []
    is_over = threading.Event()

    def start() -> None:
        with log.open("a") as stderr:
            process = subprocess.Popen(
                command(models, *flags), stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        servers.append(Server(process, log))

    def supervise() -> None:
        while not is_over.is_set():
            servers[-1].process.wait()
            if not is_over.is_set():
                start()

    start()
    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        yield servers
    finally:
        is_over.set()
        servers[-1].process.kill()
        thread.join()
        for server in servers:
            server.kill()


@pytest.mark.parametrize("row", ["F04"])
def test_killed_server_is_back_and_clients_that_retry_see_no_error(
    few: Path, tmp_path: Path, flags: tuple[str, ...], transport: str, row: str
) -> None:
    # Five attempts are the most; on a busy machine the models take seconds to load.
    policy = (
        '{"methodConfig": [{"name": [{}], "waitForReady": true, "retryPolicy": {"maxAttempts": 5,'
        '"initialBackoff": "0.5s", "maxBackoff": "10s", "backoffMultiplier": 3,'
        '"retryableStatusCodes": ["UNAVAILABLE"]}}]}'
    )
    port = free_port()
    errors: list[grpc.StatusCode] = []
    answered = threading.Semaphore(0)
    is_over = threading.Event()

    def retry() -> None:
        options = [("grpc.service_config", policy), ("grpc.max_reconnect_backoff_ms", 500)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            infer: Any = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            payload = request("affine", GOOD).SerializeToString()
            while not is_over.is_set():
                call = infer.future(payload, timeout=ANSWER_S)
                if call.code() is OK:
                    answered.release()
                else:
                    errors.append(call.code())

    with supervised(few, tmp_path / "log", *flags, "--port", str(port)) as servers:
        threads = [threading.Thread(target=retry) for _ in range(4)]
        try:
            with Client(f"127.0.0.1:{port}") as client:
                client.wait_for_health("SERVING")
                for thread in threads:
                    thread.start()
                assert answered.acquire(timeout=ANSWER_S)
                open_call = client.send(burn(FOR_EVER), timeout=10 * ANSWER_S)
                servers[0].wait_for_metric(1, "weir_running_requests", model="burner")

                killed_s = time.monotonic()
                servers[0].process.kill()
                lost = failure(open_call).code()
                told_s = time.monotonic() - killed_s
                while len(servers) == 1:
                    assert time.monotonic() < killed_s + ANSWER_S
                    time.sleep(0.01)
            with Client(f"127.0.0.1:{port}") as client:
                seen = client.wait_for_health("SERVING")
                ready = client.send(request("affine", GOOD)).code()
            for _ in range(200):
                assert answered.acquire(timeout=ANSWER_S)
        finally:
            is_over.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    assert lost is UNAVAILABLE and told_s < ANSWER_S, "at once, not at the deadline"
    assert set(seen) <= {"NOT_SERVING", "SERVING"} and ready is OK, "ready after its warm-up"
    # grpcio begins an answer before it sends its message; a client does not retry from then on.
    begun = 4 if transport == "grpc-server" else 0
    assert set(errors) <= {UNAVAILABLE} and len(errors) <= begun


@pytest.mark.parametrize("row", ["D12"])
def test_server_that_stood_still_runs_no_expired_request_and_goes_on(
    few: Path, tmp_path: Path, flags: tuple[str, ...], row: str
) -> None:
    """SIGSTOP for longer than the watchdog waits, as for a machine that was suspended."""
    with (
        running(few, tmp_path / "log", *flags, "--watchdog-timeout-s", "2") as server,
        Client(server.target) as client,
    ):
        waiting = client.send(request("patient", GOOD), timeout=3.0)
        server.wait_for_metric(1, "weir_queue_requests", model="patient")
        # Open calls, so that the watchdog has something to judge.
        watch = client.watch()
        assert next(watch) == "SERVING"

        server.process.send_signal(signal.SIGSTOP)
        try:
            late = client.send(request("affine", GOOD), timeout=0.5)
            codes = waiting.code(), late.code()
            time.sleep(1.0)
        finally:
            server.process.send_signal(signal.SIGCONT)
        server.wait_for_metric(0, "weir_queue_requests", model="patient")
        answers = [client.send(request("patient", GOOD)) for _ in range(2)]
        rows = [answer.result() for answer in answers]

        assert codes == (LATE, LATE)
        assert len(rows) == 2
        server.wait_for_metric(2, "weir_rows_total", model="patient")
        server.wait_for_metric(1, "weir_requests_total", model="patient", status=LATE.name)
        assert client.send(request("affine", GOOD)).code() is OK
        assert client.health() == "SERVING"
        assert server.process.poll() is None


@pytest.mark.parametrize("row", ["F15"])
def test_server_whose_cores_others_use_loses_no_request(
    few: Path, tmp_path: Path, flags: tuple[str, ...], row: str
) -> None:
    """Eight busy processes on the one core of the server, in place of a quota of its group."""
    core = min(os.sched_getaffinity(0))
    with ExitStack() as stack:
        server = stack.enter_context(
            running(few, tmp_path / "log", *flags, "--watchdog-timeout-s", "2")
        )
        client = stack.enter_context(Client(server.target))
        for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
            with suppress(ProcessLookupError):  # a thread of grpcio's pool has ended
                os.sched_setaffinity(int(thread.name), {core})
        for _ in range(8):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while 1: pass"]))
            stack.callback(busy.kill)
            os.sched_setaffinity(busy.pid, {core})

        calls = [client.send(request("affine", GOOD), timeout=2 * ANSWER_S) for _ in range(200)]
        codes = {call.code() for call in calls}

        assert codes <= {OK, grpc.StatusCode.RESOURCE_EXHAUSTED} and OK in codes
        assert client.health() == "SERVING"
        assert server.process.poll() is None
    assert "stuck" not in server.log()


@pytest.mark.parametrize("row", ["G07"])
def test_health_is_true_and_answered_while_the_models_are_overloaded(
    few: Path, tmp_path: Path, flags: tuple[str, ...], row: str
) -> None:
    with (
        running(few, tmp_path / "log", *flags) as server,
        Client(server.target) as client,
    ):
        runs = [client.send(burn(FOR_EVER), timeout=2 * ANSWER_S) for _ in range(4)]
        held = client.send(request("patient_full", eight_rows()), timeout=2 * ANSWER_S)
        server.wait_for_metric(8, "weir_queue_rows", model="patient_full")
        flood = [client.send(request("patient_full", GOOD)) for _ in range(200)]

        for _ in range(20):
            assert client.health() == "SERVING" and client.health("affine") == "SERVING"
        probe = client.send(request("affine", GOOD))

        assert probe.code() is OK
        assert server.metric("weir_server_ready") == 1
        assert not any(run.done() for run in runs) and not held.done()
        assert {call.code() for call in flood} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        held.cancel()
        for run in runs:
            run.cancel()


def eight_rows() -> Tensor:
    return tensor("x", np.repeat(X, 8, axis=0))


@pytest.mark.parametrize("row", ["F12-H09"])
def test_few_descriptors_leave_room_for_scrapes_and_the_server_recovers(
    few: Path, tmp_path: Path, flags: tuple[str, ...], row: str
) -> None:
    limited = "import os, resource, sys\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
    start = [sys.executable, "-c", limited + "os.execv(sys.argv[1], sys.argv[1:])"]
    with running(few, tmp_path / "log", *flags, launch=lambda own: [*start, *own]) as server:
        host, _, port = server.target.rpartition(":")
        with Client(server.target) as client, ExitStack() as stack:
            client.wait_for_health("SERVING")
            for _ in range(100):
                connection = socket.create_connection((host, int(port)), ANSWER_S)
                stack.enter_context(connection)
                # A connection of HTTP/2 stays; a silent one is closed at the handshake timeout.
                with suppress(OSError):
                    connection.sendall(PREFACE + bytes(Frame(SETTINGS, 0, 0, b"")))

            for _ in range(3):
                assert server.metric("weir_server_ready") == 1
            assert client.send(request("affine", GOOD)).code() is OK, "on its connection"
        with Client(server.target) as client:
            assert client.send(request("affine", GOOD), wait_for_ready=True).code() is OK
        assert server.process.poll() is None


@pytest.mark.parametrize("row", ["F16"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "weir.toml: prot: no such setting; the nearest is port"),
        ('grace_s = "soon"', "weir.toml: grace_s: expected a valid number"),
        ("grace_s = -1", "weir.toml: grace_s: expected greater than or equal to 0, got -1"),
        (
            "[models.affine]\nmax_batch_rows = 0",
            "models.affine.max_batch_rows: expected greater",
        ),
        ("[models.affine]\nmax_rows = 3", "weir.toml: models.affine.max_rows: no such setting"),
    ],
    ids=["unknown key", "wrong type", "negative", "of a model", "unknown of a model"],
)
def test_wrong_configuration_ends_the_start_and_names_the_key(
    few: Path, tmp_path: Path, text: str, says: str, row: str
) -> None:
    config = tmp_path / "weir.toml"
    config.write_text(text)

    done = subprocess.run(
        command(few, "--config", str(config)),
        capture_output=True, text=True, timeout=ANSWER_S, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""
