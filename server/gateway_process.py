"""The HTTP gateway as a child process of the server: started, watched, started again, stopped.

    HTTP client ──► weir gateway ──► unix socket in a private directory ──► server

The gateway is a program of its own, `weir gateway`, and is started by name. Here it serves one
machine: its TLS files are the server's, and it passes tokens on, which the server checks. Only the
server's own user may connect to the socket. So gRPC over it needs no TLS: no certificate has to
match a name.

Thread: `weir-gateway`, which starts the child, waits for its end, and starts it again.

Rules:
- The child ends with the server, whatever ends the server: its standard input ends, whose other end
  is held here.
- It has a session of its own: Ctrl-C reaches the server only, which stops it in order.
- It gets the environment of the server's start, without Weir's variables: a client's
  `WEIR_TOKEN_FILE` would lend its token to every caller.
- If the first child ends before it listens, the server does not start. A later end is logged, and a
  new child starts after a pause, on the same port.
- If memory runs out, the child is killed before the server.
"""

import logging
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from weir.server.config import Settings
from weir.server.errors import ConfigError, PortUnavailable, StartError
from weir.server.telemetry import log
from weir.server.threads import SupervisedThread

logger = logging.getLogger(__name__)

_PACKAGES = ("starlette", "uvicorn")
_LISTENING = "weir: gateway http="
_START_TIMEOUT_S = 60.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 30.0
# A child that lived so long did not end for the cause of the one before.
_STABLE_S = 60.0
_KILL_S = 5.0
_SOCKET_NAME = "grpc"
# Of sockaddr_un.sun_path, which ends with a zero; macOS has 104.
_MAX_SOCKET_PATH_BYTES = 103
# Of 1000, which the kernel adds to the child's share of the memory when it chooses what to kill.
_OOM_SCORE = "500"


class Child(Protocol):
    """A gateway that was started."""

    def address(self) -> str | None:
        """Wait until it listens; its host and port, or None if it ends before."""

    def wait(self) -> int:
        """Wait for its end; its exit code, negative for a signal."""

    def terminate(self) -> None:
        """Ask it to finish its open requests and to end."""

    def kill(self) -> None:
        """End it at once."""


class RestartPause:
    """Seconds before each restart: doubled from 1 to at most 30, and 1 again after a long life."""

    def __init__(self) -> None:
        self._next_s = _FIRST_PAUSE_S

    def after(self, lived_s: float) -> float:
        """The pause after a child that lived so long."""
        if lived_s >= _STABLE_S:
            self._next_s = _FIRST_PAUSE_S
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, _MAX_PAUSE_S)
        return pause_s


class GatewayProcess:
    """Keeps one child alive.

    Args:
        launch: starts a child that listens on a port; 0 is a free one.
        port: of the first child. A later one takes the port that the first one got.
        pause: waits for an event for so many seconds; True if it is set.
    """

    def __init__(
        self,
        launch: Callable[[int], Child],
        port: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self._launch = launch
        self._port = port
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._address: str | None = None
        self._start_failure = ""
        self._is_decided = threading.Event()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._thread = SupervisedThread(target=self._run, name="weir-gateway", daemon=True)

    def start(self) -> None:
        """Start the first child."""
        self._started_s = self._clock()
        self._thread.start()

    @property
    def address(self) -> str | None:
        """Host and port of HTTP; None before the first child listens."""
        return self._address

    def listening(self, timeout_s: float) -> bool:
        """Wait until the first child listens; False after the timeout.

        Raises:
            StartError: the child ended before, or took too long.
        """
        if not self._is_decided.wait(timeout_s):
            if self._clock() >= self._started_s + _START_TIMEOUT_S:
                raise StartError(f"the HTTP gateway does not listen after {_START_TIMEOUT_S:g} s")
            return False
        if self._address is None:
            raise StartError(f"the HTTP gateway did not start: {self._start_failure}")
        return True

    def stop(self, grace_s: float) -> bool:
        """Let the child finish its open requests; False if it has not ended within the grace."""
        with self._lock:
            # Once: the child takes a second signal for haste.
            if self._child is not None and not self._stopping.is_set():
                self._child.terminate()
            self._stopping.set()
        return self._thread.ident is None or self._ended.wait(grace_s)

    def close(self) -> None:
        """End the child at once, if it still lives."""
        if not self.stop(0.0):
            with self._lock:
                if self._child is not None:
                    self._child.kill()
            self._ended.wait(_KILL_S)

    def _run(self) -> None:
        pauses = RestartPause()
        while not self._stopping.is_set():
            started_s = self._clock()
            cause = self._live()
            if self._stopping.is_set():
                break
            if self._address is None:
                self._start_failure = cause
                break
            pause_s = pauses.after(self._clock() - started_s)
            logger.error("HTTP gateway ended cause=%s restart_s=%g", cause, pause_s)
            self._pause(self._stopping, pause_s)
        self._ended.set()
        self._is_decided.set()

    def _live(self) -> str:
        """Start a child and wait for its end; the cause of the end."""
        try:
            child = self._launch(self._port)
        except OSError as error:
            return f"no process can be started: {error.strerror or error}"
        with self._lock:
            self._child = child
            if self._stopping.is_set():
                child.terminate()
        address = child.address()
        if address is not None:
            self._address = address
            self._port = int(address.rpartition(":")[2])
            self._is_decided.set()
        exit_code = child.wait()
        with self._lock:
            self._child = None
        return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that the server listens on."""

    grpc: int
    metrics: int


def private_socket() -> Path | None:
    """The path for a unix socket in a new directory, which only this user may enter.

    None if the system has no unix sockets: the gateway then calls the gRPC port.

    Raises:
        StartError: no directory can be made.
    """
    return _private_directory() / _SOCKET_NAME if hasattr(socket, "AF_UNIX") else None


def remove_socket(path: Path | None) -> None:
    """Remove a private socket with its directory."""
    if path is not None:
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()


def check(settings: Settings) -> None:
    """Refuse settings with which the gateway cannot be started.

    Raises:
        ConfigError: its packages are not installed, or nothing protects its calls.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"http_port: expected the package {missing[0]}, got none: pip install 'weir[gateway]'"
        )
    if settings.tls_cert is not None and not hasattr(socket, "AF_UNIX"):
        raise ConfigError("http_port, tls_cert: expected a system with unix sockets, got none")


def check_port(settings: Settings) -> None:
    """Raise PortUnavailable if the HTTP port cannot be bound."""
    try:
        found = socket.getaddrinfo(settings.host, settings.http_port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if settings.share_port:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(address)
    except OSError as error:
        raise PortUnavailable(
            f"cannot listen on {_address(settings.host, settings.http_port or 0)} for HTTP: "
            f"{error.strerror or error}"
        ) from None


def launcher(
    settings: Settings,
    environment: Mapping[str, str],
    target: str,
    ports: Ports,
    socket_path: Path | None,
) -> Callable[[int], Child]:
    """What starts a child.

    Args:
        environment: of the server's start.
        target: of the server, as gRPC takes it.
        ports: that the server listens on.
        socket_path: of the private socket; the child removes it if the server was killed.
    """
    inherited = {name: value for name, value in environment.items() if not name.startswith("WEIR_")}
    # The child imports from the same places, so not from the working directory first.
    module = [sys.executable, "-P", "-m", "weir.server.gateway_process", str(socket_path or "")]
    inherited["PYTHONPATH"] = os.pathsep.join(sys.path)

    def launch(port: int) -> Child:
        return _Process([*module, *arguments(settings, target, ports, port)], inherited)

    return launch


def arguments(settings: Settings, target: str, ports: Ports, port: int) -> list[str]:
    """The command line of `weir gateway`, without the name of the command."""
    scheme = "https" if settings.tls_cert else "http"
    metrics = _address(reachable(settings.host), ports.metrics)
    options: dict[str, object] = {
        "target": target,
        # Only this user may enter the directory of the private socket.
        "advertised-target": _address(settings.host, ports.grpc),
        "host": settings.host,
        "port": port,
        "tls-cert": settings.tls_cert,
        "tls-key": settings.tls_key,
        "tls-client-ca": settings.tls_client_ca,
        "models": settings.models_dir,
        "metrics-url": f"{scheme}://{metrics}/metrics",
        "timeout": settings.default_deadline_s,
        "max-body-bytes": settings.max_message_bytes,
        "grace": settings.grace_s,
        "log-format": settings.log_format,
        "log-level": settings.log_level,
    }
    switches = {"share-port": settings.share_port, "insecure": settings.insecure}
    return [
        "gateway",
        # One argument each: a path may begin with a dash.
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
        *(f"--{name}" for name, is_on in switches.items() if is_on),
    ]


class _Process:
    """A child as a process; see `Child`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        child_end, self._own_end = os.pipe()
        own_output, output = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this program itself
                command,
                stdin=child_end,
                stdout=output,
                stderr=log.descriptor(),
                env=environment,
                start_new_session=True,
            )
        except OSError:
            os.close(self._own_end)
            os.close(own_output)
            raise
        finally:
            os.close(child_end)
            os.close(output)
        self._output = os.fdopen(own_output, "rb")

    def address(self) -> str | None:
        for line in self._output:
            text = line.decode("utf-8", "replace").strip()
            if text.startswith(_LISTENING):
                return text.removeprefix(_LISTENING)
        return None

    def wait(self) -> int:
        with self._output:
            # To its end: a pipe that fills would block the child.
            for _ in self._output:
                pass
        exit_code = self._process.wait()
        os.close(self._own_end)
        return exit_code

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _private_directory() -> Path:
    reason = "none"
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/dev/shm")):  # noqa: S108 - mkdtemp
        try:
            directory = Path(tempfile.mkdtemp(prefix="weir-", dir=parent)).absolute()
        except OSError as error:
            reason = f"{error.strerror or error} in {parent}"
            continue
        if len(os.fsencode(directory / _SOCKET_NAME)) <= _MAX_SOCKET_PATH_BYTES:
            return directory
        reason = f"a path that is too long for a unix socket in {parent}"
        directory.rmdir()
    raise StartError(
        f"http_port: expected a directory for the socket of the HTTP gateway, got {reason}; TMPDIR "
        "may name another"
    )


def reachable(host: str) -> str:
    """A host to connect to on this machine, for one to listen on."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    loopback = {4: "127.0.0.1", 6: "::1"}
    return loopback[address.version] if address.is_unspecified else host


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def main() -> None:
    """Run as the child: `weir` with these arguments, until the server ends."""
    path = Path(sys.argv[1]) if sys.argv[1] else None
    SupervisedThread(target=_end_with_server, args=(path,), name="weir-parent", daemon=True).start()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    sys.argv = ["weir", *sys.argv[2:]]
    # Not `weir gateway` itself: the server imports nothing of the gateway, and starts it by name.
    runpy.run_module("weir", run_name="__main__", alter_sys=True)


def _end_with_server(socket_path: Path | None) -> None:
    os.read(0, 1)
    # The server does this itself, unless it was killed.
    remove_socket(socket_path)
    os._exit(1)


if __name__ == "__main__":
    main()
