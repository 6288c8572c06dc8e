"""The server of a run: started, watched, ended on purpose, and started again on the same port.

Each process is a life, with a log of its own. The access log in it is the server's ledger.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from tests.helpers.ports import free_port
from tests.soak.bad_requests import MESSAGE_BYTES

START_S = 60.0
"""Time for a server to be ready, on a busy machine."""
GRACE_S = 15.0
"""The server's `--grace-s`."""

_HEALTH = "/grpc.health.v1.Health/Check"
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Life:
    """One server process.

    Attributes:
        ready_s, ended_s: on the monotonic clock; infinity until then.
        end: what ended it: `kill`, `sigterm`, or `itself`.
        exit_code: None until it has ended.
    """

    number: int
    log: Path
    started_s: float
    process: subprocess.Popen[str]
    ready_s: float = float("inf")
    ended_s: float = float("inf")
    end: str = ""
    exit_code: int | None = None

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.process.pid


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What a process uses."""

    rss_bytes: int
    descriptors: int
    threads: int
    cpu_s: float


def use_of(pid: int) -> ProcessUse | None:
    """What a process uses now; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names alone
    except (OSError, IndexError):
        return None
    cpu_s = (int(stat[11]) + int(stat[12])) / _CLOCK_TICKS
    return ProcessUse(resident * _PAGE_BYTES, descriptors, int(stat[17]), cpu_s)


class ServerUnderTest:
    """Starts the server, again and again.

    Args:
        planted: the name of a planted bug, or nothing.
    """

    def __init__(self, models: Path, settings: Path, folder: Path, planted: str = "") -> None:
        self._folder = folder
        self.port, self.metrics_port = free_port(), free_port()
        self.target = f"127.0.0.1:{self.port}"
        program = ["tests.soak.planted", planted] if planted else ["weir.server"]
        self.command = [
            sys.executable, "-m", *program, str(models),
            "--port", str(self.port), "--metrics-port", str(self.metrics_port),
            "--provider", "cpu", "--model-control", "explicit", "--config", str(settings),
            "--log-format", "json", "--access-log-sample-rate", "1",
            "--max-message-bytes", str(MESSAGE_BYTES), "--grace-s", f"{GRACE_S:g}",
        ]  # fmt: skip
        self.lives: list[Life] = []
        self._lock = threading.Lock()

    @property
    def life(self) -> Life:
        """The newest process."""
        return self.lives[-1]

    def start(self) -> Life:
        """Start a process, and wait until it is ready."""
        number = len(self.lives) + 1
        log = self._folder / f"server-{number}.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                self.command,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
                process_group=0,  # Ctrl-C is for the soak alone
            )
        life = Life(number, log, time.monotonic(), process)
        self.lives.append(life)
        end_s = time.monotonic() + START_S
        while not self.is_serving(1.0):
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
        life.ready_s = time.monotonic()
        return life

    def end(self, number: signal.Signals) -> Life:
        """End the newest process by a signal, and wait for it."""
        life = self.life
        life.end = "kill" if number is signal.SIGKILL else "sigterm"
        life.process.send_signal(number)
        try:
            life.exit_code = life.process.wait(GRACE_S + 10.0)
        except subprocess.TimeoutExpired:
            life.process.kill()
            life.process.wait()
            life.exit_code = -1
        life.ended_s = time.monotonic()
        return life

    def has_died(self) -> bool:
        """Whether the newest process has ended by itself."""
        life = self.life
        if life.end or life.process.poll() is None:
            return False
        life.end, life.exit_code = "itself", life.process.returncode
        life.ended_s = time.monotonic()
        return True

    def kill(self) -> None:
        """Make sure that nothing is left."""
        for life in self.lives:
            if life.process.poll() is None:
                with suppress(ProcessLookupError):
                    life.process.send_signal(signal.SIGCONT)
                life.process.kill()
            life.process.wait()

    def is_serving(self, timeout_s: float) -> bool:
        """Whether its health is SERVING."""
        with grpc.insecure_channel(
            self.target, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            check: Any = channel.unary_unary(
                _HEALTH, response_deserializer=health_pb2.HealthCheckResponse.FromString
            )
            try:
                response = check(b"", timeout=timeout_s)
            except grpc.RpcError:
                return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    def metrics_text(self, timeout_s: float = 5.0) -> str:
        """`/metrics`; raises OSError if it is not answered."""
        connection = HTTPConnection("127.0.0.1", self.metrics_port, timeout=timeout_s)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()
