import logging
import os
import queue
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from tests.unit.server.conftest import HANG_S
from weir.server import gateway_process
from weir.server.config import Settings
from weir.server.errors import ConfigError, PortUnavailable, StartError
from weir.server.gateway_process import GatewayProcess, RestartPause


class FakeChild:
    """A child that listens and ends when the test says so; a polite one ends at `terminate`."""

    def __init__(self, port: int, *, is_polite: bool = True) -> None:
        self.port = port
        self.is_polite = is_polite
        self.signals: list[str] = []
        self._addresses: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._exit_codes: queue.SimpleQueue[int] = queue.SimpleQueue()

    def listen(self, address: str) -> None:
        self._addresses.put(address)

    def end(self, exit_code: int) -> None:
        self._addresses.put(None)
        self._exit_codes.put(exit_code)

    def address(self) -> str | None:
        return self._addresses.get(timeout=HANG_S)

    def wait(self) -> int:
        return self._exit_codes.get(timeout=HANG_S)

    def terminate(self) -> None:
        self.signals.append("TERM")
        if self.is_polite:
            self.end(-15)

    def kill(self) -> None:
        self.signals.append("KILL")
        self.end(-9)


class Bench:
    """A supervisor with children of the test's, and a clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.children: queue.SimpleQueue[FakeChild] = queue.SimpleQueue()
        self.pauses: list[float] = []
        self.failures: list[OSError] = []
        self.is_polite = True
        self.gateway = GatewayProcess(self._launch, 0, clock=lambda: self.now_s, pause=self._pause)

    def next_child(self) -> FakeChild:
        return self.children.get(timeout=HANG_S)

    def _launch(self, port: int) -> FakeChild:
        if self.failures:
            raise self.failures.pop()
        child = FakeChild(port, is_polite=self.is_polite)
        self.children.put(child)
        return child

    def _pause(self, stopping: threading.Event, pause_s: float) -> bool:
        self.pauses.append(pause_s)
        return stopping.is_set()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.gateway.close()


def test_pause_doubles_to_half_a_minute() -> None:
    pauses = RestartPause()

    assert [pauses.after(0.1) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_pause_is_short_again_after_a_minute_of_life() -> None:
    pauses = RestartPause()
    for _ in range(4):
        pauses.after(59.9)

    assert [pauses.after(60.0), pauses.after(0.0)] == [1, 2]


def test_listening_is_announced_with_the_childs_address(bench: Bench) -> None:
    bench.gateway.start()
    child = bench.next_child()

    assert not bench.gateway.listening(0.0)
    child.listen("127.0.0.1:8123")

    assert bench.gateway.listening(HANG_S)
    assert (child.port, bench.gateway.address) == (0, "127.0.0.1:8123")


def test_child_that_ends_is_started_again_on_its_port(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    bench.gateway.start()
    first = bench.next_child()
    first.listen("[::1]:8123")

    first.end(-9)
    second = bench.next_child()
    bench.failures.append(OSError(11, "Too many processes"))
    second.end(3)
    third = bench.next_child()

    assert [first.port, second.port, third.port] == [0, 8123, 8123]
    assert bench.pauses == [1, 2, 4]
    assert [record.getMessage() for record in caplog.records] == [
        "HTTP gateway ended cause=signal 9 restart_s=1",
        "HTTP gateway ended cause=exit code 3 restart_s=2",
        "HTTP gateway ended cause=no process can be started: Too many processes restart_s=4",
    ]


def test_first_child_that_does_not_listen_is_a_start_error(bench: Bench) -> None:
    bench.gateway.start()
    bench.next_child().end(2)

    with pytest.raises(StartError, match="the HTTP gateway did not start: exit code 2"):
        bench.gateway.listening(HANG_S)
    assert bench.children.empty() and not bench.pauses, "no second try"


def test_first_child_that_cannot_be_started_is_a_start_error(bench: Bench) -> None:
    bench.failures.append(OSError(12, "Cannot allocate memory"))
    bench.gateway.start()

    with pytest.raises(StartError, match="no process can be started: Cannot allocate memory"):
        bench.gateway.listening(HANG_S)


def test_first_child_that_hangs_is_a_start_error(bench: Bench) -> None:
    bench.gateway.start()
    bench.now_s += 59.0
    assert not bench.gateway.listening(0.0)
    bench.now_s += 1.0

    with pytest.raises(StartError, match="does not listen after 60 s"):
        bench.gateway.listening(0.0)


def test_stop_asks_the_child_once_and_starts_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    bench.gateway.start()
    child = bench.next_child()
    child.listen("127.0.0.1:8123")
    assert bench.gateway.listening(HANG_S)

    assert bench.gateway.stop(HANG_S) and bench.gateway.stop(HANG_S)
    bench.gateway.close()

    assert child.signals == ["TERM"], "a second signal means haste"
    assert bench.children.empty() and not caplog.records


def test_stop_returns_after_the_grace_and_close_kills(bench: Bench) -> None:
    bench.is_polite = False
    bench.gateway.start()
    child = bench.next_child()
    child.listen("127.0.0.1:8123")
    assert bench.gateway.listening(HANG_S)

    assert not bench.gateway.stop(0.01)
    assert child.signals == ["TERM"]
    bench.gateway.close()

    assert child.signals == ["TERM", "KILL"]


def test_stop_before_the_child_listens_ends_it(bench: Bench) -> None:
    bench.gateway.start()
    child = bench.next_child()

    assert bench.gateway.stop(HANG_S)
    assert child.signals == ["TERM"]


def test_stop_of_a_gateway_that_was_not_started_returns(bench: Bench) -> None:
    assert bench.gateway.stop(HANG_S)


# The command


def settings(**own: Any) -> Settings:
    return Settings.model_validate({"models_dir": "models", "http_port": 8000, **own})


PORTS = gateway_process.Ports(grpc=8, metrics=9)


def options(arguments: Sequence[str]) -> dict[str, str]:
    assert arguments[0] == "gateway"
    pairs = [argument.removeprefix("--").partition("=") for argument in arguments[1:]]
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize(
    ("host", "metrics", "advertised"),
    [
        ("127.0.0.1", "http://127.0.0.1:9/metrics", "127.0.0.1:8"),
        ("0.0.0.0", "http://127.0.0.1:9/metrics", "0.0.0.0:8"),  # noqa: S104 - not bound
        ("::", "http://[::1]:9/metrics", "[::]:8"),
        ("localhost", "http://localhost:9/metrics", "localhost:8"),
    ],
)
def test_plaintext_gateway_listens_where_the_server_does(
    host: str, metrics: str, advertised: str
) -> None:
    found = options(
        gateway_process.arguments(settings(host=host, insecure=True), "unix:/s", PORTS, 8000)
    )

    assert found == {
        "target": "unix:/s",
        "advertised-target": advertised,
        "host": host,
        "port": "8000",
        "models": "models",
        "metrics-url": metrics,
        "timeout": "60.0",
        "max-body-bytes": str(32 * 1024 * 1024),
        "grace": "25.0",
        "log-format": "text",
        "log-level": "info",
        "insecure": "",
    }


def test_gateway_is_protected_as_the_server() -> None:
    own = {"tls_cert": "c.pem", "tls_key": "k.pem", "tls_client_ca": "ca.pem", "share_port": True}

    found = options(gateway_process.arguments(settings(**own), "unix:/s", PORTS, 8000))

    assert found["tls-cert"] == "c.pem" and found["tls-key"] == "k.pem"
    assert found["tls-client-ca"] == "ca.pem"
    assert "share-port" in found and "insecure" not in found
    assert found["metrics-url"] == "https://127.0.0.1:9/metrics"


def test_child_gets_no_variable_of_weir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import os, sys\n"
        "names = sorted(name for name in os.environ if name[:5] in ('WEIR_', 'GRPC_', 'KEPT_'))\n"
        "print(f'weir: gateway http={names}{sys.argv[1:]}:1')\n"
    )
    environment = {
        "WEIR_TOKEN_FILE": "operator.token",
        "WEIR_TARGET": "elsewhere:8001",
        "KEPT_NAME": "1",
    }
    monkeypatch.setenv("GRPC_EXPERIMENTS", "the server's own")
    monkeypatch.setattr(sys, "path", [str(stand_in(tmp_path, program)), *sys.path])

    child = gateway_process.launcher(settings(), environment, "unix:/s", PORTS, None)(0)
    address = child.address()
    exit_code = child.wait()

    assert exit_code == 0
    assert address is not None and address.startswith("['KEPT_NAME']['gateway', ")


def stand_in(folder: Path, program: str) -> Path:
    """A directory for the path of a child, whose `weir` is the real one with another `__main__`."""
    package = folder / "stand_in" / "weir"
    package.mkdir(parents=True)
    real = Path(sys.modules["weir"].__file__ or "").parent
    for entry in real.iterdir():
        if entry.name not in ("__main__.py", "__pycache__"):
            (package / entry.name).symlink_to(entry)
    (package / "__main__.py").write_text(program)
    return package.parent


def test_child_ends_with_its_parent_and_removes_the_socket(tmp_path: Path) -> None:
    path = gateway_process.private_socket()
    assert path is not None
    path.touch()
    program = "import signal\nprint('weir: gateway http=127.0.0.1:1', flush=True)\nsignal.pause()\n"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(stand_in(tmp_path, program)), *sys.path]),
    }
    command = [sys.executable, "-P", "-m", "weir.server.gateway_process", str(path), "gateway"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "weir: gateway http=127.0.0.1:1\n"

        child.stdin.close()

        assert child.wait(HANG_S) == 1
    assert not path.parent.exists()


# What is checked before the start


def test_socket_is_in_a_directory_of_this_user_alone() -> None:
    path = gateway_process.private_socket()
    assert path is not None
    try:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    finally:
        gateway_process.remove_socket(path)
    assert not path.parent.exists()


def test_socket_avoids_a_directory_whose_path_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))

    path = gateway_process.private_socket()

    gateway_process.remove_socket(path)
    assert path is not None and len(os.fsencode(path)) < 104
    assert not list(deep.iterdir())


def test_remove_leaves_what_is_not_the_socket(tmp_path: Path) -> None:
    (tmp_path / "other").touch()

    gateway_process.remove_socket(tmp_path / "grpc")

    assert (tmp_path / "other").exists()


def test_missing_packages_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == "uvicorn" else ModuleSpec(name, None)

    monkeypatch.setattr(gateway_process, "find_spec", find)

    with pytest.raises(ConfigError, match=r"uvicorn, got none: pip install 'weir\[gateway\]'"):
        gateway_process.check(settings())


def test_tls_needs_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")

    gateway_process.check(settings())
    assert gateway_process.private_socket() is None
    with pytest.raises(ConfigError, match="expected a system with unix sockets"):
        gateway_process.check(settings(tls_cert="c.pem", tls_key="k.pem"))


def test_port_in_use_is_refused_and_a_shared_one_is_not() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(PortUnavailable, match=f"cannot listen on .*:{port} for HTTP: Address"):
            gateway_process.check_port(settings(http_port=port))
        gateway_process.check_port(settings(http_port=port, share_port=True))
