"""The access log, and a log that cannot be written: rows F10 and F13 of the catalogue."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.helpers import onnx_models
from tests.helpers.ports import free_port
from tests.integration.harness import (
    ANSWER_S,
    Client,
    Server,
    command,
    failure,
    request,
    running,
    samples,
    tensor,
)
from weir.protocol import inference_pb2 as pb

SECRET = 0.123456789
ROW = tensor("x", np.full((2, 4), SECRET, np.float32))
REQUESTS = ("--access-log-sample-rate", "1", "--log-format", "json", "--log-level", "warning")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("logged")
    onnx_models.write_plain(root, "affine", onnx_models.affine(), version=7)
    onnx_models.write_plain(root, "gather", onnx_models.gather(), version=1)
    # Its requests run two by two.
    (root.parent / "weir.toml").write_text(
        "[models.gather]\nmax_batch_rows = 2\nmax_queue_delay_s = 86400\n"
    )
    return root


@pytest.fixture(scope="module")
def server(
    repository: Path, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "log"
    with running(repository, log, "--transport", transport, *REQUESTS) as server:
        yield server


def line_of(server: Server, request_id: str) -> dict[str, Any]:
    """Wait for the line of a request."""
    server.wait_for_log(f'"id": "{request_id}"')
    lines: list[dict[str, Any]] = [json.loads(line) for line in server.log().splitlines()]
    (found,) = [line for line in lines if line.get("id") == request_id]
    assert found.pop("time").endswith("Z")
    return found


def test_answered_request_has_a_line_without_its_data(server: Server) -> None:
    with Client(server.target) as client:
        message = request("affine", ROW, id="answered")
        answer = client.send(message).result()

    line = line_of(server, "answered")

    seconds = [line.pop(name) for name in ("queue_s", "compute_s", "total_s")]
    assert all(0 <= each <= seconds[-1] < ANSWER_S for each in seconds)
    assert line.pop("peer").startswith("ipv4:127.0.0.1:")
    assert line == {
        "level": "info",
        "logger": "weir.requests",
        "message": "request",
        "method": "/inference.GRPCInferenceService/ModelInfer",
        "model": "affine",
        "version": "7",
        "status": "OK",
        "id": "answered",
        "rows": 2,
        "length": 0,
        "batch_rows": 2,
        "request_bytes": message.ByteSize(),
        "response_bytes": answer.ByteSize(),
    }


def test_failed_request_has_a_line(server: Server) -> None:
    with Client(server.target) as client:
        failure(client.send(request("no\nbody" * 100, ROW, id="refused")))

    line = line_of(server, "refused")

    assert line["status"] == "NOT_FOUND"
    assert line["model"].startswith(r"no\nbodyno") and len(line["model"]) < 300
    assert not line.keys() & {"queue_s", "compute_s", "batch_rows", "version"}


def test_line_of_a_refused_request_names_the_version_that_refused_it(server: Server) -> None:
    with Client(server.target) as client:
        failure(client.send(request("affine", id="incomplete")))

    line = line_of(server, "incomplete")

    assert (line["status"], line["model"], line["version"]) == ("INVALID_ARGUMENT", "affine", "7")


def test_each_request_of_a_stream_has_a_line(server: Server) -> None:
    messages = [request("affine", ROW, id=f"streamed-{number}") for number in range(2)]
    with Client(server.target) as client:
        sent = iter([message.SerializeToString() for message in messages])
        assert len(list(client.stream(sent))) == 2

    for message in messages:
        line = line_of(server, message.id)
        assert (line["method"].rpartition("/")[2], line["status"]) == ("ModelStreamInfer", "OK")


def test_other_calls_have_lines_and_health_checks_do_not(server: Server) -> None:
    with Client(server.target) as client:
        client.ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)
        client.health()
        client.send(request("affine", ROW, id="afterwards")).result()

    line_of(server, "afterwards")

    server.wait_for_log("/inference.GRPCInferenceService/ServerLive")
    assert "grpc.health" not in server.log()


def test_off_by_default(repository: Path, tmp_path: Path) -> None:
    with running(repository, tmp_path / "log") as server, Client(server.target) as client:
        client.infer("affine", ROW)
        server.process.terminate()
        assert server.ended() == 0

    assert "weir.requests" not in server.log()


class Started:
    """A server with the given output streams, on free ports."""

    def __init__(self, repository: Path, **output: Any) -> None:
        ports = [free_port() for _ in range(2)]
        flags = ("--port", str(ports[0]), "--metrics-port", str(ports[1]))
        config = ("--config", str(repository.parent / "weir.toml"))
        arguments = command(repository, *flags, *config, *REQUESTS)
        if redirect := output.pop("redirect", ""):
            arguments = ["sh", "-c", f'exec "$@" {redirect}', "sh", *arguments]
        self.process = subprocess.Popen(arguments, **output)
        self.client = Client(f"127.0.0.1:{ports[0]}")
        self._metrics_port = ports[1]

    def lost_lines(self) -> float:
        connection = HTTPConnection("127.0.0.1", self._metrics_port, timeout=ANSWER_S)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return samples(text)["weir_log_dropped_total", frozenset()]

    def answers(self, count: int) -> None:
        """Send so many requests at once."""
        futures = [self.client.send(request("affine", ROW)) for _ in range(count)]
        for future in futures:
            assert future.result().model_name == "affine"


@contextmanager
def started(repository: Path, **output: Any) -> Iterator[Started]:
    """Start such a server and wait until it is ready."""
    server = Started(repository, **output)
    try:
        grpc.channel_ready_future(server.client.channel).result(ANSWER_S)
        server.client.wait_for_health("SERVING")
        yield server
    finally:
        server.client.channel.close()
        server.process.kill()
        server.process.wait()


def stops(server: Started) -> bool:
    server.process.terminate()
    return server.process.wait(ANSWER_S) == 0


def test_log_without_a_reader_stalls_no_inference(repository: Path) -> None:
    """F13: more lines than the pipe holds, then other log lines, then a stop."""
    reader, writer = os.pipe()
    try:
        with started(repository, stdout=subprocess.DEVNULL, stderr=writer) as server:
            server.answers(400)
            # The thread that runs batches logs a failed batch.
            wrong = request("gather", tensor("tokens", np.full((1, 3), 99)))
            for future in [server.client.send(wrong) for _ in range(2)]:
                assert failure(future).code() is grpc.StatusCode.INVALID_ARGUMENT

            assert stops(server)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_closed_log_stalls_nothing(repository: Path, stream: str) -> None:
    """F13: every write fails from the start."""
    reader, writer = os.pipe()
    os.close(reader)
    other = "stderr" if stream == "stdout" else "stdout"
    with started(repository, **{stream: writer, other: subprocess.DEVNULL}) as server:
        os.close(writer)
        server.answers(10)

        assert stops(server)


def test_server_without_output_streams_serves(repository: Path) -> None:
    """F13: both streams are closed. The next opened files get their numbers and stay unwritten."""
    with started(repository, redirect=">&- 2>&-") as server:
        server.answers(10)

        assert server.lost_lines() == 0
        assert stops(server)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_affects_the_log_only(repository: Path) -> None:
    """F10."""
    with started(repository, redirect=">/dev/full 2>/dev/full") as server:
        server.answers(10)

        # The thread of the log writes a line a little after its answer.
        end_s = time.monotonic() + ANSWER_S
        while server.lost_lines() < 10:
            assert time.monotonic() < end_s, "lines are not counted as lost"
            time.sleep(0.01)
        assert stops(server)
