import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

import weir.server
from tests.helpers.ports import free_port
from tests.unit.server.conftest import HANG_S
from weir import Client
from weir.server.app import App
from weir.server.config import Settings
from weir.server.errors import ConfigError, PortUnavailable
from weir.server.repository.repository import Repository
from weir.server.runtime.cores import usable_cores
from weir.server.threads import SupervisedThread

TRANSPORTS = ("completion-queue", "grpc-server")
# The log's and the exporter's threads have no end: they may still have a line to write.
_ENDLESS = ("weir-log", "weir-exporter")

Make = Callable[..., App]


@pytest.fixture
def make(models: Path) -> Make:
    """An app on an empty repository; both ports are 0 by default."""

    def make(**own: Any) -> App:
        values = {"models_dir": models, "port": 0, "metrics_port": 0, "grace_s": 1.0, **own}
        return App(Settings.model_validate(values))

    return make


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture
def port() -> int:
    return free_port()


def own_threads() -> set[str]:
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if name.startswith("weir-") and name not in _ENDLESS}


def test_every_thread_of_a_running_server_is_supervised(make: Make) -> None:
    app = make()
    app.start()
    try:
        bare = {
            thread.name
            for thread in threading.enumerate()
            if thread.name.startswith("weir-") and not isinstance(thread, SupervisedThread)
        }
        assert own_threads() >= {"weir-io", "weir-deadlines", "weir-loader", "weir-watchdog"}
    finally:
        app.stop()

    assert bare == set()


def test_no_thread_of_the_server_is_started_without_supervision() -> None:
    server = Path(weir.server.__file__).parent
    bare = [
        path.relative_to(server).as_posix()
        for path in server.rglob("*.py")
        if re.search(r"[ .=]Thread\(|start_new_thread", path.read_text("utf-8"))
    ]

    assert bare == [], "use weir.server.threads.SupervisedThread"


def wait_until(holds: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < end_s, f"{what}: {own_threads()}"
        time.sleep(0.01)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_start_announces_both_ports_and_stop_ends_every_thread(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    before = own_threads()
    app = make()

    app.start()
    announced = capsys.readouterr().out
    app.stop()

    found = re.fullmatch(r"weir: serving grpc=127.0.0.1:(\d+) metrics=127.0.0.1:(\d+)\n", announced)
    assert found
    wait_until(lambda: own_threads() <= before, "threads after a stop")
    assert is_free(int(found[1])) and is_free(int(found[2]))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_metrics_port_in_use_closes_the_grpc_port(
    transport: str, make: Make, port: int, taken_port: int
) -> None:
    before = own_threads()

    with pytest.raises(PortUnavailable, match=f"cannot listen on .*:{taken_port} for metrics"):
        make(transport=transport, port=port, metrics_port=taken_port).start()

    assert is_free(port)
    wait_until(lambda: own_threads() <= before, "threads after a failed start")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_part_that_fails_to_start_closes_those_before_it(
    transport: str, make: Make, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = own_threads()

    def fail(_repository: Repository) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Repository, "start", fail)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        make(transport=transport, port=port).start()

    assert is_free(port)
    wait_until(lambda: own_threads() <= before, "threads after a failed start")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("host", "callers"),
    [("::1", ["::1"]), ("[::1]", ["::1"]), ("::", ["::1", "127.0.0.1"])],
)
def test_ipv6_hosts(
    transport: str,
    host: str,
    callers: Sequence[str],
    make: Make,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    app = make(transport=transport, host=host, insecure=True)
    app.start()
    try:
        line = capsys.readouterr().out
        found = re.fullmatch(r"weir: serving grpc=(.*):(\d+) metrics=(.*):(\d+)\n", line)

        assert found and found[1] == found[3] == f"[{host.strip('[]')}]"
        for caller in callers:
            url = f"[{caller}]" if ":" in caller else caller
            with Client(f"{url}:{found[2]}", timeout_s=HANG_S) as client:
                assert client.is_live()
            connection = HTTPConnection(caller, int(found[4]), timeout=HANG_S)
            connection.request("GET", "/metrics")
            assert connection.getresponse().status == 200
            connection.close()
    finally:
        app.stop()


def transport_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    warnings = [each for each in caplog.records if each.levelname == "WARNING"]
    return [each.getMessage() for each in warnings if "transport" in each.getMessage()]


def transport_of(make: Make, capsys: pytest.CaptureFixture[str], **own: Any) -> tuple[Any, str]:
    """What a server says of its transport: over the wire, and in its metrics."""
    app = make(**own)
    app.start()
    try:
        found = re.search(r"grpc=(\S+) metrics=(\S+)", capsys.readouterr().out)
        assert found
        with Client(found[1], timeout_s=HANG_S) as client:
            info = client.server_info()
        assert (info.process_id, info.metrics_address) == (os.getpid(), found[2])
        assert (info.usable_cores, info.shares_port) == (usable_cores(), False)
        connection = HTTPConnection(found[2], timeout=HANG_S)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
    finally:
        app.stop()
    (line,) = [each for each in page.splitlines() if each.startswith("weir_transport_fallback ")]
    return info, line.split()[1]


def test_transport_that_auto_had_to_take_is_a_warning_and_is_shown(
    make: Make,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc, "__version__", "1.99.0")

    info, fallback = transport_of(make, capsys)

    (warning,) = transport_warnings(caplog)
    assert warning == (
        "slower transport chosen transport=grpc-server "
        "reason=expected grpcio>=1.81,<1.86, got 1.99.0 "
        "cost=2 to 5 times the CPU of a small call, at most 512 open calls "
        "fix=pip install 'grpcio>=1.81,<1.86'"
    )
    assert (info.transport, info.grpcio) == ("grpc-server", "1.99.0")
    assert info.transport_problem == "expected grpcio>=1.81,<1.86, got 1.99.0"
    assert fallback == "1.0"


@pytest.mark.parametrize("transport", ["auto", "grpc-server"])
def test_transport_of_choice_is_no_fallback(
    transport: str,
    make: Make,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    info, fallback = transport_of(make, capsys, transport=transport)

    assert not transport_warnings(caplog)
    assert info.transport == ("completion-queue" if transport == "auto" else transport)
    assert (info.transport_problem, fallback) == ("", "0.0")


def test_transport_that_is_set_but_does_not_work_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc, "__version__", "1.99.0")

    with pytest.raises(ConfigError, match="completion-queue: expected grpcio"):
        make(transport="completion-queue").start()


def test_grpc_port_in_use_starts_nothing(make: Make, taken_port: int) -> None:
    before = own_threads()

    with pytest.raises(PortUnavailable, match=str(taken_port)):
        make(port=taken_port).start()

    assert own_threads() <= before


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_shared_port_is_closed_until_the_models_are_loaded(
    transport: str,
    make: Make,
    port: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []

    def is_interrupted() -> bool:
        seen.append(is_free(port))
        return len(seen) == 2

    monkeypatch.setattr(Repository, "start", lambda _: None)  # never ends to load
    app = make(transport=transport, port=port, share_port=True)
    app.start(is_interrupted)
    app.stop()

    assert seen == [True, True]
    assert capsys.readouterr().out == ""


def test_models_dir_that_is_missing_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"MODELS: expected a model repository, .* does not exist"
    ):
        make(models_dir=tmp_path / "nowhere")
