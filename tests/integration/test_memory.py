"""The memory of a server: refusals before its limit, and a run for which there is not enough.

The limit of the tests is RLIMIT_AS, which every Linux has; that of a container works the same.
"""

import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto

from tests.helpers import onnx_models
from tests.integration.harness import (
    ANSWER_S,
    FOR_EVER,
    GOOD,
    Client,
    Server,
    burn,
    failure,
    request,
    running,
    tensor,
)

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
MIB = 2**20

# The C library reserves address space for each thread's arena, which this would count.
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
os.environ["MALLOC_ARENA_MAX"] = "2"
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("memory")
    free = onnx_models.echo(TensorProto.FLOAT, ("batch", "time"))
    for name, graph in {
        "affine": onnx_models.affine(),
        "burner": onnx_models.burner(),
        "free": free,
        "sizer": onnx_models.sizer(),
    }.items():
        onnx_models.write_plain(root, name, graph)
    return root


def limited(models: Path, log: Path, limit_bytes: int, *flags: str) -> Any:
    """A server whose address space has a limit."""
    start = [sys.executable, "-c", LIMITED, str(limit_bytes)]
    return running(models, log, *flags, launch=lambda own: [*start, *own])


@pytest.mark.parametrize("row", ["F05"])
def test_burst_of_large_messages_is_refused_before_the_memory_limit(
    repository: Path, tmp_path: Path, row: str
) -> None:
    """A burst of more than half as much again as the limit."""
    values = np.zeros((1, 30 * MIB // 4), np.float32)
    payload = request("free", tensor("x", values)).SerializeToString()
    endings: Counter[grpc.StatusCode] = Counter()

    def call(server: Server) -> None:
        with Client(server.target, use_local_subchannel_pool=1) as client:
            endings[client.send(payload, timeout=2 * ANSWER_S).code()] += 1

    with limited(repository, tmp_path / "log", 1200 * MIB) as server:
        threads = [threading.Thread(target=call, args=(server,)) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert endings.keys() <= {grpc.StatusCode.OK, EXHAUSTED}, server.log()
        assert endings[EXHAUSTED] and endings[grpc.StatusCode.OK]
        assert server.metric("weir_memory_refused_total") > 0
        with Client(server.target) as client:
            assert client.health() == "SERVING"
            expect_good_answer_soon(client)
        # What the C library keeps of the messages goes back to the system.
        server.wait_for_metric(0, "weir_memory_high")
        assert server.process.poll() is None


def expect_good_answer_soon(client: Client) -> None:
    end_s = time.monotonic() + ANSWER_S
    while (call := client.send(request("affine", GOOD))).code() is EXHAUSTED:
        assert time.monotonic() < end_s
        time.sleep(0.05)
    assert call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("row", ["F05"])
def test_requests_above_the_bytes_in_flight_are_refused_with_a_pause(
    repository: Path, tmp_path: Path, transport: str, row: str
) -> None:
    message = burn(FOR_EVER)
    message.parameters["note"].string_param = "x" * 16_384
    flags = ("--transport", transport, "--model-setting", "burner.max_inflight_bytes=32768")
    with (
        running(repository, tmp_path / "log", *flags) as server,
        Client(server.target) as client,
    ):
        running_call = client.send(message, timeout=2 * ANSWER_S)
        server.wait_for_metric(1, "weir_running_requests", model="burner")
        held_bytes = server.metric("weir_inflight_bytes", model="burner")
        refused = failure(client.send(message))
        other = client.send(request("affine", GOOD))

        assert 16_384 < held_bytes < 32_768
        assert refused.code() is EXHAUSTED
        assert f"model 'burner': requests of {held_bytes:.0f} bytes are in flight" in str(
            refused.details()
        )
        assert "grpc-retry-pushback-ms" in dict(refused.trailing_metadata())
        server.wait_for_metric(1, "weir_memory_refused_total", reason="bytes_in_flight")
        assert other.code() is grpc.StatusCode.OK
        assert not running_call.done()
        running_call.cancel()
        server.wait_for_metric(0, "weir_inflight_bytes")


@pytest.mark.parametrize("row", ["F06"])
def test_run_without_enough_memory_fails_alone_and_the_session_serves_on(
    repository: Path, tmp_path: Path, transport: str, row: str
) -> None:
    def send(client: Client, size: int) -> grpc.Call:
        call: grpc.Call = client.send(request("sizer", tensor("size", np.array([size]))))
        return call

    # The watermark is off: it may refuse the next call while the memory is freed.
    flags = ("--transport", transport, "--memory-watermark", "1")
    with (
        limited(repository, tmp_path / "log", 1500 * MIB, *flags) as server,
        Client(server.target) as client,
    ):
        failed = send(client, 2**30)
        after = send(client, 1000)

        assert (failed.code(), failed.details()) == (
            EXHAUSTED,
            "the run needs more memory than there is",
        )
        assert after.code() is grpc.StatusCode.OK
        assert client.send(request("affine", GOOD)).code() is grpc.StatusCode.OK
        assert server.process.poll() is None
