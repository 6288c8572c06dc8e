import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.ports import free_port
from tests.unit.server.conftest import HANG_S
from weir import Client
from weir.server.app import App
from weir.server.config import Settings
from weir.server.errors import ConfigError, PortUnavailable
from weir.server.repository.repository import Repository

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
    app = make(transport=transport, host=host)
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


def test_grpc_port_in_use_starts_nothing(make: Make, taken_port: int) -> None:
    before = own_threads()

    with pytest.raises(PortUnavailable, match=str(taken_port)):
        make(port=taken_port).start()

    assert own_threads() <= before


def test_models_dir_that_is_missing_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"MODELS: expected a model repository, .* does not exist"
    ):
        make(models_dir=tmp_path / "nowhere")
