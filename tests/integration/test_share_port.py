"""Several server processes on one port (`--share-port`): connections, a stop, and mistakes."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.helpers import onnx_models
from tests.helpers.ports import free_port
from tests.integration.harness import (
    ANSWER_S,
    SERVICE,
    Server,
    X,
    arrays,
    command,
    request,
    running,
    tensor,
)
from weir.protocol import inference_pb2 as pb
from weir.protocol import models_pb2 as models_pb

CONNECTIONS = 32
"""So many connections go to one of two processes once in 2,000,000,000 runs."""

# The answer of a call that crosses a stopping server's GOAWAY; such a call may be sent again.
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}


@pytest.fixture(scope="module")
def one_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one_model")
    onnx_models.write_plain(root, "affine", onnx_models.affine())
    return root


@contextmanager
def connection(target: str) -> Iterator[grpc.Channel]:
    """A channel with a connection of its own; by default gRPC shares one between channels."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(RETRIES)),
    ]
    with grpc.insecure_channel(target, options) as channel:
        yield channel


def process_id(channel: grpc.Channel) -> int:
    """The process that answers a connection."""
    call: Any = channel.unary_unary("/weir.v1.Models/GetServerInfo")
    return models_pb.GetServerInfoResponse.FromString(call(b"", timeout=ANSWER_S)).process_id


def infer(channel: grpc.Channel) -> None:
    """One inference that waits for a connection, and its answer."""
    call: Any = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    payload = request("affine", tensor("x", X)).SerializeToString()
    answer = pb.ModelInferResponse.FromString(call(payload, timeout=ANSWER_S, wait_for_ready=True))
    np.testing.assert_array_equal(arrays(answer)["y"], 2 * X + 1)


def processes_of_new_connections(target: str) -> set[int]:
    """The processes that answer `CONNECTIONS` new connections."""
    found = set()
    for _ in range(CONNECTIONS):
        with connection(target) as channel:
            infer(channel)
            found.add(process_id(channel))
    return found


@contextmanager
def sharing(models: Path, folder: Path, flags: Sequence[str]) -> Iterator[list[Server]]:
    """Two ready servers on one port."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(running(models, folder / f"log-{number}", *flags, "--share-port"))
            for number in range(2)
        ]


@pytest.fixture
def flags(transport: str) -> tuple[str, ...]:
    return ("--transport", transport, "--port", str(free_port()))


def test_a_stop_of_one_process_loses_no_call(
    one_model: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    stopped = threading.Event()

    def call_until_stopped(target: str) -> int:
        count = 0
        with connection(target) as channel:
            while not stopped.is_set():
                infer(channel)
                count += 1
        return count

    with sharing(one_model, tmp_path, flags) as (stays, stops):
        pids = {stays.process.pid, stops.process.pid}
        assert stays.target == stops.target and stays.metrics != stops.metrics
        assert processes_of_new_connections(stays.target) == pids

        with ThreadPoolExecutor(8) as callers:
            calling = [callers.submit(call_until_stopped, stays.target) for _ in range(8)]
            stops.process.send_signal(signal.SIGTERM)
            code = stops.ended()
            found = processes_of_new_connections(stays.target)
            stopped.set()
            counts = [each.result() for each in calling]

        assert code == 0 and "server stopped drained=True" in stops.log()
        assert found == {stays.process.pid}
        assert all(counts)


@pytest.mark.parametrize("sharer", [0, 1], ids=["first-shares", "second-shares"])
def test_port_is_shared_only_if_both_share_it(
    sharer: int, one_model: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    own = [flags, flags]
    own[sharer] = (*flags, "--share-port")

    with running(one_model, tmp_path / "log", *own[0]):
        second = subprocess.run(
            command(one_model, *own[1]), capture_output=True, text=True, check=False, timeout=60
        )

    assert second.returncode == 2 and second.stdout == ""
    # The thread of the log may write its last line later.
    start = f"weir: cannot listen on 127.0.0.1:{flags[-1]}: Address already in"
    (message,) = (line for line in second.stderr.splitlines() if line.startswith(start))
    assert ("one that does not share its port" in message) == (sharer == 1)
