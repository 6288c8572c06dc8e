"""The faults of a run, each made while good traffic goes on.

Each fault records its window: the time in which it may be the cause of a failure, and of which.
"""

import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

import grpc

from tests.soak import models, oracle
from tests.soak.bad_requests import METHOD
from tests.soak.findings import Finding
from tests.soak.schedule import BURST_S
from tests.soak.server import ServerUnderTest, use_of
from weir.protocol import inference_pb2 as pb
from weir.protocol import models_pb2 as models_pb

_LOAD_S = 60.0
_AFTER_S = 1.5
_MEMORY_HEADROOM_BYTES = 384 << 20
_SCRAPERS = 20
_LONG_RUN, _LONG_RUN_HEAD_START_S = 80, 0.3
_PEERS = 12
_SPARE_DESCRIPTORS = 6
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_CLOSE_AT_ONCE = struct.pack("ii", 1, 0)

_OK, _DEADLINE, _EXHAUSTED, _FAILED_PRECONDITION, _UNAVAILABLE, _CANCELLED = 0, 4, 8, 9, 14, 1


@dataclass(slots=True)
class Window:
    """A fault that was made.

    Attributes:
        statuses: the failures that it explains.
        models: the models whose failures it explains; empty: every model.
        is_outage: whether no server was ready for a part of it.
    """

    fault: str
    start_s: float
    end_s: float = float("inf")
    statuses: frozenset[int] = frozenset()
    models: frozenset[int] = frozenset()
    is_outage: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """The version that answers was changed, between two times."""

    began_s: float
    done_s: float
    version: int


@dataclass(frozen=True, slots=True)
class Killed:
    """A client process that was killed."""

    client: int
    incarnation: int
    at_s: float


class DisposableClient(Protocol):
    """The client that is stopped and killed."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""

    def replace(self) -> Killed:
        """Kill it, and start another."""


@dataclass(slots=True)
class FaultMaker:
    """Makes the faults, one at a time.

    Attributes:
        control: held while a fault is made.
        heavy: iterations of the burner that take a hundredth of a second.
        newest: the highest version of `fingerprint` that was good.
    """

    server: ServerUnderTest
    root: Path
    client: DisposableClient
    random: Random
    windows: list[Window] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    kills: list[Killed] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    control: threading.RLock = field(default_factory=threading.RLock)
    heavy: int = 1
    newest: int = 1
    next_version: int = 2
    made: dict[str, int] = field(default_factory=dict)

    def make(self, name: str) -> None:
        """Make a fault; an error in it is a finding."""
        with self.control:
            try:
                FAULTS[name](self)
            except Exception as error:  # noqa: BLE001 - the run goes on and reports it
                self.found(f"{name}: {type(error).__name__}: {error}")
            self.made[name] = self.made.get(name, 0) + 1

    def found(self, what: str) -> None:
        """Record that a fault was not answered as expected."""
        self.findings.append(Finding("I6", time.monotonic(), what))

    @contextmanager
    def window(
        self, fault: str, *statuses: int, only: int | None = None, is_outage: bool = False
    ) -> Iterator[None]:
        """Record a window around what is done in it."""
        limited = frozenset() if only is None else frozenset({only})
        window = Window(
            fault, time.monotonic(), float("inf"), frozenset(statuses), limited, is_outage
        )
        self.windows.append(window)
        try:
            yield
        finally:
            window.end_s = time.monotonic() + _AFTER_S

    def restart(self, fault: str, number: signal.Signals) -> None:
        """End the server and start it again."""
        with self.window(fault, _UNAVAILABLE, _CANCELLED, is_outage=True):
            life = self.server.end(number)
            if number is signal.SIGTERM and life.exit_code != 0:
                self.found(f"SIGTERM: expected exit code 0, got {life.exit_code}")
            self.server.start()

    def call(
        self, method: str, message: Any, service: str = "inference.GRPCInferenceService"
    ) -> int:
        """Make a call of control; the number of its status."""
        with grpc.insecure_channel(self.server.target) as channel:
            call: Any = channel.unary_unary(f"/{service}/{method}")
            try:
                call(message.SerializeToString(), timeout=_LOAD_S)
            except grpc.RpcError as error:
                return int(error.code().value[0])
        return _OK

    def expect(self, what: str, expected: int, got: int) -> None:
        """Record a status that was not expected."""
        if expected != got:
            self.found(f"{what}: expected status {expected}, got {got}")

    @contextmanager
    def changing(self, version: int) -> Iterator[None]:
        """Record a change of the version that answers."""
        began_s = time.monotonic()
        yield
        self.changes.append(Change(began_s, time.monotonic(), version))

    def load(self, name: str = "fingerprint", *, again: bool = False) -> int:
        """Load what lies in the repository."""
        message = pb.RepositoryModelLoadRequest(model_name=name)
        if again:
            message.parameters["reload"].bool_param = True
        return self.call("RepositoryModelLoad", message)

    def label(self, version: int) -> int:
        """Set the label "stable" to a version; 0 removes it."""
        message = models_pb.SetLabelRequest(
            model_name="fingerprint", label="stable", version=version
        )
        return self.call("SetLabel", message, "weir.v1.Models")


def _sigterm(make: FaultMaker) -> None:
    """A stop, while a request of almost a second runs: it is answered before the end."""
    message = oracle.burner(_LONG_RUN * make.heavy).message("long-run")
    with grpc.insecure_channel(make.server.target) as channel:
        method: Any = channel.unary_unary(METHOD)
        call = method.future(message, timeout=_LOAD_S)
        time.sleep(_LONG_RUN_HEAD_START_S)
        make.restart("sigterm", signal.SIGTERM)
        if (code := call.code()) is not grpc.StatusCode.OK:
            what = f"a request that ran at SIGTERM: expected OK, got {code.name}"
            make.findings.append(Finding("I1", time.monotonic(), what))


def _kill_server(make: FaultMaker) -> None:
    make.restart("kill_server", signal.SIGKILL)


def _stop_server(make: FaultMaker) -> None:
    process = make.server.life.process
    with make.window("stop_server"):
        process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(make.random.uniform(0.5, 1.5))
        finally:
            process.send_signal(signal.SIGCONT)


def _kill_client(make: FaultMaker) -> None:
    with make.window("kill_client"):
        make.kills.append(make.client.replace())


def _stop_client(make: FaultMaker) -> None:
    with make.window("stop_client"):
        make.client.signal(signal.SIGSTOP)
        try:
            time.sleep(make.random.uniform(1.0, 2.0))
        finally:
            make.client.signal(signal.SIGCONT)


def _slow_peers(make: FaultMaker) -> None:
    """Connections that say nothing, little, or go away in the middle."""
    with make.window("slow_peers"):
        sockets = [
            socket.create_connection(("127.0.0.1", make.server.port), timeout=5.0)
            for _ in range(_PEERS)
        ]
        try:
            for number, peer in enumerate(sockets):
                if number % 3 == 1:
                    peer.sendall(_PREFACE + _EMPTY_SETTINGS)
            for byte in _PREFACE[:20]:
                for peer in sockets[2::3]:
                    peer.sendall(bytes([byte]))
                time.sleep(0.1)
        finally:
            for peer in sockets:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_AT_ONCE)
                peer.close()


def _scrape_burst(make: FaultMaker) -> None:
    failed: list[str] = []

    def scrape() -> None:
        for _ in range(3):
            try:
                make.server.metrics_text(20.0)
            except OSError as error:
                failed.append(str(error))

    with make.window("scrape_burst"):
        threads = [threading.Thread(target=scrape) for _ in range(_SCRAPERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failed:
        make.found(f"scrape_burst: {len(failed)} scrapes failed, the first: {failed[0]}")


def _reload_good(make: FaultMaker) -> None:
    version, make.next_version = make.next_version, make.next_version + 1
    models.write_fingerprint(make.root, version)
    with make.window("reload_good"), make.changing(version):
        make.expect("load of a good version", _OK, make.load())
    make.newest = version
    # What is kept is enough to roll back.
    for path in (make.root / "fingerprint").iterdir():
        if path.name.isdigit() and int(path.name) < version - 8:
            models.remove(path)


def _reload_broken(make: FaultMaker) -> None:
    _refuse(make, "reload_broken", models.write_broken)


def _reload_half(make: FaultMaker) -> None:
    _refuse(make, "reload_half", models.write_half)


def _refuse(make: FaultMaker, fault: str, write: Callable[[Path, int], Path]) -> None:
    version, make.next_version = make.next_version, make.next_version + 1
    directory = write(make.root, version)
    with make.window(fault):
        make.expect(f"load of {fault}", _FAILED_PRECONDITION, make.load())
    models.remove(directory)


def _reload_pair(make: FaultMaker) -> None:
    with make.window("reload_pair"):
        make.expect("reload of the pair", _OK, make.load("pair", again=True))


def _rollback(make: FaultMaker) -> None:
    """Back to the version before, and forth again."""
    if make.newest == 1:
        _reload_good(make)
    directories = (make.root / "fingerprint").iterdir()
    on_disk = [int(path.name) for path in directories if path.name.isdigit()]
    older = max(version for version in on_disk if version < make.newest)
    with make.window("rollback"):
        with make.changing(older):
            make.expect("rollback", _OK, make.label(older))
        time.sleep(0.3)
        with make.changing(make.newest):
            make.expect("return from a rollback", _OK, make.label(0))


def _memory_limit(make: FaultMaker) -> None:
    """For a few seconds, the server may take little more memory than it has."""
    pid = make.server.life.pid
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    with make.window("memory_limit"):
        resource.prlimit(pid, resource.RLIMIT_AS, (size + _MEMORY_HEADROOM_BYTES, before[1]))
        try:
            for _ in range(3):
                make.expect("a run of a gibibyte", _EXHAUSTED, _hungry_call(make))
                time.sleep(0.3)
        finally:
            resource.prlimit(pid, resource.RLIMIT_AS, before)


def _hungry_call(make: FaultMaker) -> int:
    message = pb.ModelInferRequest(model_name="hungry")
    message.inputs.add(name="x", datatype="FP32", shape=(1, models.HUNGRY_WIDTH))
    message.raw_input_contents.append(bytes(4 * models.HUNGRY_WIDTH))
    return make.call("ModelInfer", message)


def _few_descriptors(make: FaultMaker) -> None:
    """For two seconds, the server can open almost no file, while clients connect."""
    life = make.server.life
    use = use_of(life.pid)
    before = resource.prlimit(life.pid, resource.RLIMIT_NOFILE)
    if use is None:
        return
    with make.window("few_descriptors"):
        limit = use.descriptors + _SPARE_DESCRIPTORS
        resource.prlimit(life.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        try:
            peers = [
                socket.create_connection(("127.0.0.1", make.server.port), timeout=5.0)
                for _ in range(_PEERS)
            ]
            time.sleep(2.0)
            for peer in peers:
                peer.close()
        finally:
            resource.prlimit(life.pid, resource.RLIMIT_NOFILE, before)


def _full_disk(make: FaultMaker) -> None:
    """For two seconds, the server's log cannot grow."""
    life = make.server.life
    before = resource.prlimit(life.pid, resource.RLIMIT_FSIZE)
    with make.window("full_disk"):
        limit = life.log.stat().st_size
        resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            time.sleep(2.0)
        finally:
            resource.prlimit(life.pid, resource.RLIMIT_FSIZE, before)


def _overload(make: FaultMaker) -> None:
    """The hostile client sends three times what the burner can do; see `Schedule.bursts_s`."""
    with make.window("overload", _EXHAUSTED, _DEADLINE, only=oracle.BURNER):
        time.sleep(BURST_S)


FAULTS: Mapping[str, Callable[[FaultMaker], None]] = {
    "sigterm": _sigterm,
    "kill_server": _kill_server,
    "stop_server": _stop_server,
    "kill_client": _kill_client,
    "stop_client": _stop_client,
    "slow_peers": _slow_peers,
    "scrape_burst": _scrape_burst,
    "reload_good": _reload_good,
    "reload_broken": _reload_broken,
    "reload_half": _reload_half,
    "reload_pair": _reload_pair,
    "rollback": _rollback,
    "memory_limit": _memory_limit,
    "full_disk": _full_disk,
    "few_descriptors": _few_descriptors,
    "overload": _overload,
}
