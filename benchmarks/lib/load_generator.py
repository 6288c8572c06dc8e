"""Load generator process: calls with different bodies at given times; records start and end.

`load.send_open` starts `main`, which reads a pickled schedule and writes a pickled record.
Unlike h2load it sends a different body with every call, reads
streams, and sends at given times whatever the server does. It has one thread; calls take turns on
the connections. In a closed loop the next call starts when one ends, on the same connection. In an
open loop the latency of a call counts from when it was due, however late it was sent. A call with a
deadline carries it, and is cancelled when it passes, as by any gRPC client.

`benchmarks/ceiling.py` measures its rate, cost and lateness.
"""

import gc
import heapq
import pickle
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib.http2 import Connection, status_of

SILENCE_S = 120.0
DEADLINE_EXCEEDED, RESET = 4, -1
_READ_BYTES = 2**18
_clock = time.perf_counter


@dataclass(frozen=True, slots=True)
class Schedule:
    """The calls to make, and when.

    Attributes:
        order: the index of each call's body among the framed `bodies`.
        in_flight: of a closed loop.
        due_s: of an open loop, when each call is due, from the start; empty for a closed loop.
        timeouts_s: of an open loop, the deadline of each call, from when it is due; empty for none.
    """

    target: str
    path: str
    bodies: Sequence[bytes]
    order: Sequence[int]
    in_flight: int = 1
    due_s: Sequence[float] = ()
    connections: int = 1
    timeouts_s: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """Results of the calls, in the order of the schedule; times in seconds from the start.

    Attributes:
        began_s: when a call was sent; in an open loop, when it was due.
        first_s: when its first bytes arrived, NaN without any.
        ended_s: when it ended.
        answers: the received bytes.
        cpu_s: CPU time of this process.
        statuses: of a schedule with deadlines: the gRPC status, of a call that was reset `RESET`.
    """

    began_s: NDArray[np.float64]
    sent_s: NDArray[np.float64]
    first_s: NDArray[np.float64]
    ended_s: NDArray[np.float64]
    answers: list[bytes]
    cpu_s: float
    statuses: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


class Generator:
    """Makes the calls of a schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._count = len(schedule.order)
        self._connections = [
            Connection(
                schedule.target,
                schedule.path,
                schedule.bodies,
                reads_trailers=bool(schedule.timeouts_s),
            )
            for _ in range(schedule.connections)
        ]
        self._sockets = [_connect(schedule.target) for _ in self._connections]
        self._streams: list[dict[int, int]] = [{} for _ in self._connections]
        self._next = self._ended = 0
        self._sent, self._first, self._end = (np.full(self._count, np.nan) for _ in range(3))
        self._answers = [b""] * self._count
        self._statuses = np.full(self._count if schedule.timeouts_s else 0, RESET)
        # Open calls with a deadline: when it passes, number, connection and stream.
        self._deadlines: list[tuple[float, int, int, int]] = []

    def run(self) -> Record:
        """Make every call and wait for its end."""
        cpu_s, self._start_s = time.process_time(), _clock()
        if not self._schedule.due_s:
            for number in range(min(self._schedule.in_flight, self._count)):
                self._call(number % len(self._sockets))
        while self._ended < self._count:
            pause_s = min(self._send_due(), self._cancel_late())
            self._flush()
            if self._ended < self._count:
                self._read(pause_s)
        for each in self._sockets:
            each.close()
        began = np.array(self._schedule.due_s) if self._schedule.due_s else self._sent
        cpu_s = time.process_time() - cpu_s
        return Record(
            began, self._sent, self._first, self._end, self._answers, cpu_s, self._statuses
        )

    def _send_due(self) -> float:
        """Send the calls that are due in an open loop; the time until the next one."""
        due_s = self._schedule.due_s
        if not due_s or self._next == self._count:
            return SILENCE_S
        while (early_s := due_s[self._next] - (_clock() - self._start_s)) <= 0:
            self._call(self._next % len(self._sockets))
            if self._next == self._count:
                return SILENCE_S
        return early_s

    def _cancel_late(self) -> float:
        """Cancel the calls whose deadline has passed; the time until the next one passes."""
        while self._deadlines:
            end_s, number, lane, stream = self._deadlines[0]
            if stream in self._streams[lane]:
                now_s = _clock() - self._start_s
                if end_s > now_s:
                    return end_s - now_s
                del self._streams[lane][stream]
                self._connections[lane].cancel(stream)
                self._end[number], self._statuses[number] = now_s, DEADLINE_EXCEEDED
                self._ended += 1
            heapq.heappop(self._deadlines)
        return SILENCE_S

    def _call(self, lane: int) -> None:
        number = self._next
        self._next += 1
        self._sent[number] = now_s = _clock() - self._start_s
        timeout_s = None
        if self._schedule.timeouts_s:
            end_s = self._schedule.due_s[number] + self._schedule.timeouts_s[number]
            timeout_s = end_s - now_s
        stream = self._connections[lane].call(self._schedule.order[number], timeout_s)
        self._streams[lane][stream] = number
        if timeout_s is not None:
            heapq.heappush(self._deadlines, (end_s, number, lane, stream))

    def _flush(self) -> None:
        for each, connection in zip(self._sockets, self._connections, strict=True):
            if data := connection.outgoing():
                each.sendall(data)

    def _read(self, pause_s: float) -> None:
        readable = select.select(self._sockets, (), (), pause_s)[0]
        if not readable and pause_s == SILENCE_S:
            raise TimeoutError(f"no answer for {SILENCE_S} s")
        for each in readable:
            lane = self._sockets.index(each)
            data = each.recv(_READ_BYTES)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._take(lane, data)

    def _take(self, lane: int, data: bytes) -> None:
        now_s = _clock() - self._start_s
        streams = self._streams[lane]
        for stream, answer, trailers in self._connections[lane].received(data):
            if answer is None:
                self._first[streams[stream]] = now_s
                continue
            number = streams.pop(stream)
            self._end[number] = now_s
            self._answers[number] = answer
            if self._schedule.timeouts_s and (status := status_of(trailers)) is not None:
                self._statuses[number] = status
            self._ended += 1
            if not self._schedule.due_s and self._next < self._count:
                self._call(lane)


def _connect(target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    connected = socket.create_connection((host, int(port)))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def main() -> None:
    """Read the schedule, run it, write the record."""
    generator = Generator(pickle.load(sys.stdin.buffer))  # noqa: S301 - from `load.send_open`
    gc.disable()
    pickle.dump(generator.run(), sys.stdout.buffer)
