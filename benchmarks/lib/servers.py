"""A server process, and its metrics and CPU time as seen from outside."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from weir import Client
from weir.client.errors import WeirError

_COUNTED_WITHIN_S = 2.0
_READY_WITHIN_S = 60.0
_READY_PAUSE_S = 0.1
_STOPPED_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Counters:
    """Names of a server's metrics.

    Attributes:
        answered: calls answered OK.
        answered_having: a text in those samples that other samples of the name lack.
        batches: runs of the model.
        computed: time in runs of the model.
        computed_unit_s: the unit of that time.
    """

    answered: str
    answered_having: str
    batches: str
    computed: str
    computed_unit_s: float = 1.0


WEIR = Counters("weir_requests_total", '"OK"', "weir_batches_total", "weir_compute_seconds_sum")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server process; `metrics` is the address of its metrics page.

    `others` are further processes on the same port. Counters and CPU time are sums of all. `http`
    is the address of the inference protocol over HTTP, empty without it.
    """

    pid: int
    target: str
    metrics: str
    counters: Counters
    others: tuple["Server", ...] = ()
    http: str = ""

    def total(self, metric: str, having: str = "") -> float:
        """The sum of the counter's samples that contain a text."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics") as response:
            own = total(response.read().decode(), metric, having)
        return own + sum(each.total(metric, having) for each in self.others)

    def answered(self, expected: float) -> float:
        """Calls answered OK so far; a batch is counted shortly after its answers."""
        counters, end_s = self.counters, time.perf_counter() + _COUNTED_WITHIN_S
        while (
            count := self.total(counters.answered, counters.answered_having)
        ) < expected and time.perf_counter() < end_s:
            pass
        return count

    def batches(self) -> float:
        """Runs of the model so far."""
        return self.total(self.counters.batches)

    def computed_s(self) -> float:
        """Time in runs of the model so far."""
        return self.total(self.counters.computed) * self.counters.computed_unit_s

    def status(self, field: str) -> float:
        """A number of the process's /proc/PID/status: VmRSS in KiB, Threads."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{field}:"))

    def cpu_s(self) -> float:
        """User and system time so far, of the process and its children."""
        return sum(map(_cpu_s, family(self.pid))) + sum(each.cpu_s() for each in self.others)


def total(page: str, metric: str, having: str = "") -> float:
    """The sum of a metric's samples on a page that contain a text."""
    return sum(
        float(line.split()[-1])
        for line in page.splitlines()
        if line.startswith(metric) and having in line
    )


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        # The process may have ended meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            children.setdefault(int(_fields(place)[1]), []).append(int(place.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def _cpu_s(pid: int) -> float:
    fields = _fields(Path(f"/proc/{pid}/stat"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _fields(stat: Path) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may contain blanks."""
    return stat.read_text().rpartition(")")[2].split()


@contextmanager
def sharing(models: Path, names: Sequence[str], *flags: str, processes: int) -> Iterator[Server]:
    """Several processes of `weir serve` on one port, once these models are ready in each."""
    (port,) = free_ports(1)
    with ExitStack() as stack:
        first, *others = (
            stack.enter_context(serving(models, names, *flags, "--share-port", port=port))
            for _ in range(processes)
        )
        yield replace(first, others=tuple(others))


@contextmanager
def serving(
    models: Path,
    names: Sequence[str],
    *flags: str,
    module: str = "weir.server",
    port: int = 0,
    provider: str = "cpu",
    tree: Path | None = None,
) -> Iterator[Server]:
    """`weir serve`, once these models are ready; `module` may replace the server.

    Args:
        tree: another checkout, whose server is started with this interpreter.
    """
    command = [
        sys.executable, "-m", module, str(models.absolute()), *flags,
        "--port", str(port), "--metrics-port", "0",
        "--provider", provider, "--log-level", "warning",
    ]  # fmt: skip
    # A replaced server may import gRPC core before `weir serve` sets this.
    environment = {"GRPC_EXPERIMENTS": "-event_engine_listener", **os.environ}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tree
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            places = dict(word.split("=") for word in line.split() if "=" in word)
            if "grpc" not in places:
                raise RuntimeError(f"{command[:4]} did not start")
            _wait_ready(places["grpc"], names, process)
            http = places.get("http", "")
            yield Server(process.pid, places["grpc"], places["metrics"], WEIR, http=http)
        finally:
            process.terminate()


@contextmanager
def listening(
    command: Sequence[str],
    names: Sequence[str],
    *,
    port: int,
    metrics_port: int,
    http_port: int | None = None,
    counters: Counters,
    environment: Mapping[str, str] | None = None,
    log: Path,
) -> Iterator[Server]:
    """A server with given ports, once these models are ready; its output goes to `log`."""
    target, metrics = f"127.0.0.1:{port}", f"127.0.0.1:{metrics_port}"
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process,
    ):
        try:
            _wait_ready(target, names, process)
            http = f"127.0.0.1:{http_port}" if http_port else ""
            yield Server(process.pid, target, metrics, counters, http=http)
        except Exception:
            sys.stderr.write(log.read_text()[-4000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(_STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()


def free_ports(count: int) -> list[int]:
    """Free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _wait_ready(target: str, names: Sequence[str], process: "subprocess.Popen[Any]") -> None:
    """Poll until ready: not every server can be watched."""
    end_s = time.monotonic() + _READY_WITHIN_S
    with Client(target) as client:
        while not _are_ready(client, names):
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"{process.args!r}: not ready after {_READY_WITHIN_S} s")
            time.sleep(_READY_PAUSE_S)


def _are_ready(client: Client, names: Sequence[str]) -> bool:
    try:
        return all(client.model_ready(name) for name in names)
    except WeirError:
        return False
