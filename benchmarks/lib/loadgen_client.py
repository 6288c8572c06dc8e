"""gRPC client that MLPerf's LoadGen drives: a process of its own, in LoadGen's environment.

`loadgen.run` starts `main`, which reads a pickled `Trial` and writes a pickled `Report`. Only the
standard library, LoadGen and `lib/http2.py` are imported. There are two threads: LoadGen's calls
`issue`, which sends; the receiver completes the samples. A sample is one call of one row; calls
take turns on the connections.
"""

import gc
import pickle
import select
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from benchmarks.lib.http2 import Connection

SINGLE_STREAM, OFFLINE, SERVER = SCENARIOS = "SingleStream", "Offline", "Server"
SUMMARY, ACCURACY = "mlperf_log_summary.txt", "mlperf_log_accuracy.json"
_READ_BYTES = 2**18
_CLOSE_CHECK_S = 0.1
_SWITCH_S = 0.0005
_LEAST_LATENCY_NS = 50_000


@dataclass(frozen=True, slots=True)
class Trial:
    """A test of LoadGen.

    Attributes:
        bodies: the framed request of each sample.
        rate_per_s: Server: the rate of arrivals. Offline: the rate expected, which sets the number
            of samples.
        latency_s: Server: the bound of the 99th percentile.
        in_flight: the most calls open at a time; 0 for no limit.
        is_accuracy: whether every sample is sent once and its answer logged.
        logs: where LoadGen writes its files.
    """

    target: str
    path: str
    bodies: Sequence[bytes]
    scenario: str
    seconds: float
    rate_per_s: float = 0.0
    latency_s: float = 0.0
    connections: int = 8
    in_flight: int = 0
    is_accuracy: bool = False
    logs: Path = Path()


@dataclass(frozen=True, slots=True)
class Report:
    """Calls answered and refused, and the client's CPU time, LoadGen's included."""

    answered: int
    refused: int
    cpu_s: float


class Caller:
    """Sends samples and completes them when their answers arrive."""

    def __init__(self, trial: Trial, loadgen: Any) -> None:
        self._trial, self._loadgen = trial, loadgen
        self._limit = trial.in_flight or sys.maxsize
        self._lock = Lock()
        self._connections = [
            Connection(trial.target, trial.path, trial.bodies) for _ in self._numbers()
        ]
        self._sockets = [_connect(trial.target) for _ in self._numbers()]
        self._ids: list[dict[int, int]] = [{} for _ in self._numbers()]
        self._waiting: deque[tuple[int, int]] = deque()
        self._open = self._next = self.answered = self.refused = 0
        self._is_closed = False
        self._receiver = Thread(target=self._receive, name="receiver", daemon=True)
        self._receiver.start()

    def issue(self, ids: Sequence[int], samples: Sequence[int]) -> None:
        """Send these samples, or keep them until fewer calls are open."""
        with self._lock:
            self._waiting.extend(zip(ids, samples, strict=True))
            self._send()

    def close(self) -> None:
        """Stop the receiver."""
        self._is_closed = True
        self._receiver.join()
        for each in self._sockets:
            each.close()

    def _numbers(self) -> range:
        return range(self._trial.connections)

    def _send(self) -> None:
        used = set()
        while self._waiting and self._open < self._limit:
            number, sample = self._waiting.popleft()
            place = self._next % len(self._connections)
            self._next += 1
            self._open += 1
            self._ids[place][self._connections[place].call(sample)] = number
            used.add(place)
        for place in used:
            self._flush(place)

    def _flush(self, place: int) -> None:
        if data := self._connections[place].outgoing():
            self._sockets[place].sendall(data)

    def _receive(self) -> None:
        places = {each.fileno(): place for place, each in enumerate(self._sockets)}
        poll = select.epoll()
        for fileno in places:
            poll.register(fileno, select.EPOLLIN)
        while not self._is_closed:
            for fileno, _ in poll.poll(_CLOSE_CHECK_S):
                place = places[fileno]
                data = self._sockets[place].recv(_READ_BYTES)
                if not data:
                    raise ConnectionError("the server closed the connection")
                self._complete(self._take(place, data))

    def _take(self, place: int, data: bytes) -> list[tuple[int, bytes]]:
        """The samples that these bytes end, each with its answer; the next ones are sent."""
        ended = []
        with self._lock:
            for stream, answer, _ in self._connections[place].received(data):
                if answer is not None:
                    ended.append((self._ids[place].pop(stream), answer))
            self._open -= len(ended)
            self._flush(place)
            if self._waiting:
                self._send()
        return ended

    def _complete(self, ended: Sequence[tuple[int, bytes]]) -> None:
        response = self._loadgen.QuerySampleResponse
        refused = sum(not answer for _, answer in ended)
        self.refused += refused
        self.answered += len(ended) - refused
        if not self._trial.is_accuracy:
            self._loadgen.QuerySamplesComplete([response(number, 0, 0) for number, _ in ended])
            return
        for number, answer in ended:
            logged = array("B", answer)  # LoadGen copies it before it returns
            place, size = logged.buffer_info()
            self._loadgen.QuerySamplesComplete([response(number, place, size)])


def settings(trial: Trial, loadgen: Any) -> Any:
    """LoadGen's settings for a trial; all others keep LoadGen's defaults."""
    found = loadgen.TestSettings()
    found.scenario = getattr(loadgen.TestScenario, trial.scenario)
    mode = "AccuracyOnly" if trial.is_accuracy else "PerformanceOnly"
    found.mode = getattr(loadgen.TestMode, mode)
    found.min_duration_ms = int(trial.seconds * 1000)
    # LoadGen prepares as many queries as fit into the time at this latency.
    found.single_stream_expected_latency_ns = _LEAST_LATENCY_NS
    if trial.rate_per_s:
        found.server_target_qps = found.offline_expected_qps = trial.rate_per_s
    if trial.latency_s:
        found.server_target_latency_ns = int(trial.latency_s * 1e9)
    return found


def run(trial: Trial) -> Report:
    """Let LoadGen make one test."""
    import mlperf_loadgen as loadgen  # type: ignore[import-not-found] # noqa: PLC0415 - own venv

    caller = Caller(trial, loadgen)
    sut = loadgen.ConstructFastSUT(caller.issue, lambda: None)
    count = len(trial.bodies)
    library = loadgen.ConstructQSL(count, count, lambda _: None, lambda _: None)
    logs = loadgen.LogSettings()
    logs.enable_trace = False
    logs.log_output.outdir = str(trial.logs)
    cpu_s = time.process_time()
    loadgen.StartTestWithLogSettings(sut, library, settings(trial, loadgen), logs)
    cpu_s = time.process_time() - cpu_s
    caller.close()
    loadgen.DestroyQSL(library)
    loadgen.DestroyFastSUT(sut)
    return Report(caller.answered, caller.refused, cpu_s)


def _connect(target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    connected = socket.create_connection((host, int(port)))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def main() -> None:
    """Read the trial, run it, write the report."""
    trial = pickle.load(sys.stdin.buffer)  # noqa: S301 - from `loadgen.run`
    gc.disable()
    sys.setswitchinterval(_SWITCH_S)
    pickle.dump(run(trial), sys.stdout.buffer)
