"""A thread that dies or no longer turns ends the process, with an exit code of its own."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.helpers import onnx_models
from tests.integration import planted_server
from tests.integration.harness import (
    ANSWER_S,
    GOOD,
    Client,
    burn,
    failure,
    request,
    running,
)
from weir.protocol import inference_pb2 as pb
from weir.server.threads import THREAD_DIED, THREAD_STUCK

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
WATCHDOG = ("--watchdog-timeout-s", "2")


@pytest.fixture(scope="module")
def affine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("affine")
    onnx_models.write_plain(root, "affine", onnx_models.affine())
    onnx_models.write_plain(root, "burner", onnx_models.burner())
    return root


def planted(fault: str, models: Path, log: Path, *flags: str) -> Any:
    """A server with a fault of `planted_server`."""
    return running(models, log, *flags, launch=planted_server.launch(fault))


def set_off(client: Client) -> None:
    """The call that sets the fault off; it need not be answered."""
    live = client.unary("ServerLive").future(
        pb.ServerLiveRequest().SerializeToString(), timeout=ANSWER_S
    )
    live.exception()


@pytest.mark.parametrize("row", ["H03"])
@pytest.mark.parametrize("fault", ["memory-error", "exit"])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_dead_io_thread_ends_the_process(
    affine: Path, tmp_path: Path, transport: str, fault: str, *, log_format: str, row: str
) -> None:
    flags = ("--transport", transport, "--log-format", log_format)
    with (
        planted(fault, affine, tmp_path / "log", *flags) as server,
        Client(server.target) as client,
    ):
        watch = client.watch()
        assert next(watch) == "SERVING"

        set_off(client)
        code = server.ended()

        assert failure(watch).code() is UNAVAILABLE
    log = server.log()
    assert code == THREAD_DIED
    events = [line for line in log.splitlines() if "thread ended unexpectedly" in line]
    assert len(events) == 1
    last = log[log.index(events[0]) :]
    assert "MemoryError: planted" in last if fault == "memory-error" else "SystemExit: 3" in last
    assert "weir-io" in last if transport == "completion-queue" else "_serve" in last
    assert "server stopping" not in log


@pytest.mark.parametrize("row", ["H03"])
@pytest.mark.parametrize("fault", ["stuck", "stuck-deadlines"])
def test_thread_that_no_longer_turns_ends_the_process(
    affine: Path, tmp_path: Path, fault: str, row: str
) -> None:
    # For half of this time the server says that it is not ready, before it ends.
    flags = ("--watchdog-timeout-s", "4")
    with (
        planted(fault, affine, tmp_path / "log", *flags) as server,
        Client(server.target) as client,
    ):
        if fault == "stuck":
            live = client.unary("ServerLive").future(b"", timeout=ANSWER_S)
        else:
            set_off(client)
            # The thread turns when this deadline is due.
            live = client.send(request("affine", GOOD), timeout=0.5)
        server.wait_for_metric(0, "weir_server_ready")
        code = server.ended()

    log = server.log()
    assert code == THREAD_STUCK
    name = "weir-io" if fault == "stuck" else "weir-deadlines"
    assert f"thread stuck thread={name} timeout_s=4 exit_code=71" in log
    assert f"Thread {name}:" in log and "planted_server.py" in log, "the stacks of all threads"
    assert fault != "stuck" or live.exception() is not None


@pytest.mark.parametrize("row", ["H03"])
def test_watchdog_leaves_idle_and_busy_servers_alone(
    affine: Path, tmp_path: Path, iterations_per_s: int, row: str
) -> None:
    """An open stream without messages, and a run that is longer than the watchdog waits."""
    with (
        running(affine, tmp_path / "log", *WATCHDOG) as server,
        Client(server.target) as client,
    ):
        watch = client.watch()
        assert next(watch) == "SERVING"
        run = client.send(burn(3 * iterations_per_s), timeout=4 * ANSWER_S)
        run.result()
        assert client.health() == "SERVING"
        assert server.process.poll() is None


@pytest.mark.parametrize("row", ["H03"])
def test_stop_of_a_stuck_server_is_not_drained(affine: Path, tmp_path: Path, row: str) -> None:
    with (
        planted("stuck", affine, tmp_path / "log", "--grace-s", "1") as server,
        Client(server.target) as client,
    ):
        live = client.unary("ServerLive").future(b"", timeout=ANSWER_S)
        server.wait_for_metric(0.2, "weir_io_delay_seconds")

        server.process.terminate()
        code = server.ended()

        assert failure(live).code() is UNAVAILABLE
    log = server.log()
    assert code == 0 and "server stopped drained=False" in log
