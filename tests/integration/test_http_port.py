"""`--http-port`: the gateway as a child of the server, from its start to every kind of end."""

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from operator import gt
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.helpers.certificates import Authority, Certificate
from tests.helpers.ports import free_port
from tests.integration.harness import (
    ANSWER_S,
    FOR_EVER,
    GOOD,
    Client,
    Server,
    X,
    burn,
    command,
    expect_right_answer,
    request,
    running,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
TOKEN = "secret-of-everything-0123456789"  # noqa: S105 - of the tests
OPERATOR_TOKEN = "secret-of-the-operator-0123456789"  # noqa: S105 - of the tests


@contextmanager
def serving(models: Path, folder: Path, *flags: str, **own: Any) -> Iterator[Server]:
    """A server with an HTTP port, whose gateway is gone at the end, with its socket."""
    with running(models, folder / "log", "--http-port", "0", *flags, **own) as server:
        child = gateway_of(server)
        yield server
    until(lambda: not is_alive(child), "the gateway outlives the server")


def until(holds: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + ANSWER_S
    while not holds():
        assert time.monotonic() < end_s, what
        time.sleep(0.02)


def gateways_of(server: Server) -> list[int]:
    """The process ids of the server's gateway: one, or none while it is down."""
    found = []
    for entry in Path("/proc").iterdir():
        # A process may end at any moment.
        with suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            is_child = entry.name.isdigit() and int(fields[1]) == server.process.pid
            if is_child and b"gateway_process" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def gateway_of(server: Server) -> int:
    (found,) = gateways_of(server)
    return found


def socket_of(child: int) -> Path:
    """The path of the socket by which a gateway reaches its server."""
    arguments = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
    (target,) = (each for each in arguments if each.startswith("--target=unix:"))
    return Path(target.removeprefix("--target=unix:"))


def is_alive(process_id: int) -> bool:
    with suppress(OSError):
        stat = Path(f"/proc/{process_id}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] != "Z"
    return False


def infer(
    address: str,
    model: str = "affine",
    *,
    token: str | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[int, Any]:
    """Status and JSON of one inference over HTTP."""
    host, _, port = address.rpartition(":")
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": X.tolist()}]}
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connection = (
        HTTPConnection(host, int(port), timeout=2 * ANSWER_S)
        if context is None
        else HTTPSConnection(host, int(port), timeout=2 * ANSWER_S, context=context)
    )
    with closing(connection):
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def expect_same_answer(address: str, **own: Any) -> None:
    """An answer over HTTP is the one over gRPC: `2x + 1`."""
    status, answer = infer(address, **own)
    assert status == 200, answer
    (output,) = answer["outputs"]
    np.testing.assert_array_equal(np.array(output["data"]).reshape(output["shape"]), 2 * X + 1)


def in_flight(pool: ThreadPoolExecutor, server: Server) -> Future[tuple[int, Any]]:
    """A request over HTTP that waits in the server's queue for a second row."""
    future = pool.submit(infer, server.http, "patient")
    server.wait_for_metric(1, "weir_queue_requests", model="patient")
    return future


def test_http_answers_as_grpc_does(few: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    with serving(few, tmp_path, *flags) as server:
        path = socket_of(gateway_of(server))
        with Client(server.target) as client:
            expect_right_answer(client)
        expect_same_answer(server.http)
        missing = infer(server.http, "no-such-model")
        with closing(HTTPConnection(server.http, timeout=ANSWER_S)) as connection:
            connection.request("GET", "/page/models")
            shown = json.loads(connection.getresponse().read())

        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0

        assert missing[0] == 404
        assert (shown["target"], shown["tls"]) == (server.target, False)
        assert not path.parent.exists()
        assert "drained=True" in server.log() and "ERROR" not in server.log()


def test_request_in_flight_at_a_stop_is_answered_while_grpc_is(
    few: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with serving(few, tmp_path, *flags) as server, ThreadPoolExecutor() as pool:
        waiting = in_flight(pool, server)

        server.process.send_signal(signal.SIGTERM)
        until(lambda: not accepts(server.http), "the gateway still takes connections")
        with Client(server.target) as client:
            answer = client.send(request("patient", GOOD)).result()

        assert answer.raw_output_contents
        assert waiting.result(ANSWER_S)[0] == 200
        assert server.ended() == 0
        assert "drained=True" in server.log()


def test_request_that_outlasts_the_gateways_share_is_answered_by_the_drain(
    few: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with (
        serving(few, tmp_path, *flags, "--grace-s", "4") as server,
        ThreadPoolExecutor() as pool,
    ):
        waiting = in_flight(pool, server)

        server.process.send_signal(signal.SIGTERM)

        # The drain runs what waits, without waiting for more rows.
        assert waiting.result(ANSWER_S)[0] == 200
        assert server.ended() == 0
        assert "drained=True" in server.log()


def test_request_beyond_the_grace_does_not_hold_up_the_stop(
    few: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """An upload that stalls: half of the grace is the gateway's, then it is killed."""
    with serving(few, tmp_path, *flags, "--grace-s", "2") as server:
        host, _, port = server.http.rpartition(":")
        with socket.create_connection((host, int(port)), ANSWER_S) as upload:
            upload.sendall(
                b"POST /v2/models/affine/infer HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
            )
            with Client(server.target) as client:
                run = client.send(burn(FOR_EVER), timeout=2 * ANSWER_S)
                server.wait_for_metric(1, "weir_running_requests", model="burner")
                server.process.send_signal(signal.SIGTERM)

                assert server.ended() == 0
                assert run.code() is not grpc.StatusCode.OK
        assert "drained=False" in server.log()


def accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), ANSWER_S):
        return True
    return False


@pytest.mark.parametrize("end", ["kill", "second signal"])
def test_server_that_is_killed_takes_its_gateway_along(end: str, few: Path, tmp_path: Path) -> None:
    with serving(few, tmp_path) as server:
        child = gateway_of(server)
        path = socket_of(child)
        if end == "kill":
            server.process.kill()
        else:
            with Client(server.target) as client:
                run = client.send(burn(FOR_EVER), timeout=2 * ANSWER_S)
                server.wait_for_metric(1, "weir_running_requests", model="burner")
                server.process.send_signal(signal.SIGTERM)
                server.wait_for_log("server stopping")
                server.process.send_signal(signal.SIGTERM)
                assert run.code() is UNAVAILABLE
        server.ended()

        until(lambda: not is_alive(child), "the gateway outlives its server")
        until(lambda: not path.parent.exists(), "the socket outlives its server")


def test_killed_gateway_is_back_and_harms_no_grpc_caller(
    few: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    failures: list[str] = []
    answered = {"grpc": 0, "http": 0}
    is_over = threading.Event()

    def call_grpc() -> None:
        with Client(server.target) as client:
            while not is_over.is_set():
                try:
                    expect_right_answer(client)
                    answered["grpc"] += 1
                except (grpc.RpcError, AssertionError) as error:
                    failures.append(str(error))

    def call_http() -> None:
        while not is_over.is_set():
            # It is down for a while.
            with suppress(OSError, HTTPException):
                expect_same_answer(server.http)
                answered["http"] += 1

    def wait_for_answers() -> None:
        before = answered.copy()
        until(lambda: all(answered[way] > before[way] + 5 for way in before), "calls stand still")

    with serving(few, tmp_path, *flags) as server:
        callers = [threading.Thread(target=call) for call in (call_grpc, call_grpc, call_http)]
        for caller in callers:
            caller.start()
        try:
            for _ in range(2):
                until(lambda: bool(gateways_of(server)), "no gateway is started")
                wait_for_answers()
                child = gateway_of(server)
                os.kill(child, signal.SIGKILL)
                until(lambda: gateways_of(server) not in ([], [child]), "no new gateway")  # noqa: B023
            wait_for_answers()
        finally:
            is_over.set()
            for caller in callers:
                caller.join()
        server.wait_for_log("HTTP gateway ended cause=signal 9 restart_s=2")

        assert failures == []
        assert server.metric("weir_request_failures_total") == 0


def failed_start(models: Path, *flags: str, program: str = "") -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a server that cannot start."""
    whole = command(models, *flags)
    if program:
        whole[1:3] = ["-c", program]
    done = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=2 * ANSWER_S)
    return done.returncode, done.stdout, done.stderr


def test_port_in_use_is_one_line_and_exit_code_2(few: Path, transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        code, output, errors = failed_start(few, "--transport", transport, "--http-port", port)

    assert (code, output) == (2, "")
    reason = f"weir: cannot listen on 127.0.0.1:{port} for HTTP: Address already in use\n"
    assert reason in errors


def test_missing_extra_is_named_before_anything_is_bound(few: Path) -> None:
    program = (
        "import importlib.util as util\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, *more: name != 'starlette' and real(name, *more) or None\n"
        "from weir.server.__main__ import main\n"
        "main()\n"
    )
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        code, output, errors = failed_start(
            few, "--http-port", "0", "--port", str(port), program=program
        )

    assert (code, output) == (2, "")
    assert errors == (
        "weir: http_port: expected the package starlette, got none: pip install 'weir[gateway]'\n"
    ), "not that the port is in use"


def test_gateway_that_does_not_start_ends_the_server(few: Path) -> None:
    program = (
        "import weir.server.gateway_process as gateway\n"
        "real = gateway.arguments\n"
        "gateway.arguments = lambda *own: [*real(*own), '--no-such-option']\n"
        "from weir.server.__main__ import main\n"
        "main()\n"
    )

    code, output, errors = failed_start(few, "--http-port", "0", program=program)

    assert (code, output) == (2, "")
    assert "No such option: --no-such-option" in errors
    assert errors.endswith("weir: the HTTP gateway did not start: exit code 2\n")


@dataclass(frozen=True)
class Files:
    """Certificates and tokens, as flags of a server and as files of its clients."""

    authority: Authority
    certificate: Certificate
    tokens: Path

    @property
    def tls(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.certificate.cert), "--tls-key", str(self.certificate.key))

    @property
    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.ca))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    authority = Authority(tmp_path / "authority")
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        f"[tokens.one]\ntoken = '{TOKEN}'\nmodels = ['affine']\ncalls = ['infer']\n"
        f"[tokens.operator]\ntoken = '{OPERATOR_TOKEN}'\ncalls = ['infer', 'read', 'control']\n"
    )
    return Files(authority, authority.issue("localhost", "127.0.0.1"), tokens)


def wait_until_serving(server: Server) -> None:
    server.wait_for_log("server ready")


def test_tokens_are_checked_by_the_server(
    few: Path, tmp_path: Path, files: Files, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a client of the same user reads must not lend its token to every caller of HTTP.
    (tmp_path / "operator.token").write_text(OPERATOR_TOKEN)
    monkeypatch.setenv("WEIR_TOKEN_FILE", str(tmp_path / "operator.token"))
    flags = ("--transport", transport, "--tokens-file", str(files.tokens))

    with serving(few, tmp_path, *flags, ready=False) as server:
        wait_until_serving(server)
        expect_same_answer(server.http, token=TOKEN)
        statuses = [
            infer(server.http, model, token=token)[0]
            for model, token in (("affine", None), ("affine", "wrong"), ("patient", TOKEN))
        ]

    assert statuses == [401, 401, 403]


def test_http_port_has_the_certificate_of_the_grpc_port(
    few: Path, tmp_path: Path, files: Files, transport: str
) -> None:
    # The certificate is for names that the gateway does not call the server by.
    flags = ("--transport", transport, *files.tls, "--tokens-file", str(files.tokens))

    with serving(few, tmp_path, *flags, ready=False) as server:
        wait_until_serving(server)
        expect_same_answer(server.http, token=TOKEN, context=files.client)
        without_token = infer(server.http, context=files.client)[0]
        with pytest.raises((OSError, HTTPException)):
            infer(server.http, token=TOKEN)

    assert without_token == 401


def test_http_port_asks_for_client_certificates_as_the_grpc_port(
    few: Path, tmp_path: Path, files: Files, transport: str
) -> None:
    flags = ("--transport", transport, *files.tls, "--tls-client-ca", str(files.authority.ca))
    own = files.authority.issue("someone")
    stranger = Authority(tmp_path / "strangers").issue("someone")
    known, unknown = files.client, files.client
    known.load_cert_chain(own.cert, own.key)
    unknown.load_cert_chain(stranger.cert, stranger.key)

    with serving(few, tmp_path, *flags, ready=False) as server:
        wait_until_serving(server)
        expect_same_answer(server.http, context=known)
        for context in (files.client, unknown):
            with pytest.raises((OSError, HTTPException)):
                infer(server.http, context=context)


def test_two_processes_share_the_http_port(few: Path, tmp_path: Path) -> None:
    """A stop of one loses no request on a connection that was accepted."""
    ports = ("--share-port", "--port", str(free_port()), "--http-port", str(free_port()))
    statuses: list[int] = []
    is_over = threading.Event()

    def keep_calling(address: str) -> None:
        while not is_over.is_set():
            # One that waits to be accepted is reset when the port closes, before or after a part
            # of the request.
            with suppress(ConnectionResetError, BrokenPipeError):
                statuses.append(infer(address)[0])

    with (
        running(few, tmp_path / "first", *ports) as first,
        running(few, tmp_path / "second", *ports) as second,
    ):
        children = [gateway_of(server) for server in (first, second)]

        def counts_of_both() -> list[float]:
            return [server.counts("affine").get("OK", 0) for server in (first, second)]

        counts = counts_of_both()
        callers = [threading.Thread(target=keep_calling, args=(first.http,)) for _ in range(2)]
        for caller in callers:
            caller.start()
        try:
            until(lambda: all(map(gt, counts_of_both(), counts)), "one process gets no request")
            first.process.send_signal(signal.SIGTERM)
            assert first.ended() == 0
            so_far = len(statuses)
            until(lambda: len(statuses) > so_far + 20, "the other process does not answer")
        finally:
            is_over.set()
            for caller in callers:
                caller.join()

        assert first.http == second.http and not is_alive(children[0]) and is_alive(children[1])
        assert set(statuses) == {200}
