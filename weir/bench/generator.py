"""Makes the calls of a plan and measures them.

The request is serialised once; answers are taken as bytes and not parsed. Each channel has one
thread, gRPC's own, on which a call's end is recorded and, in a closed loop, the next call started.
An open loop is paced by the thread that called `run`; it sleeps between calls.

What it costs, on 2 cores shared with an echo server on gRPC core's completion queue (grpcio 1.85,
3 KB requests, best of six): 32 in flight 15,400 calls/s at 53 µs of CPU each, 1 in flight 5,300 at
107 µs, 32 over 4 connections 11,000. An open loop wakes up for each call: 173 µs at 2,000 calls/s,
sent 0.6 ms late at p99, and 7 ms at 5,000. The report says how late; `processes` help where there
are cores.

Side by side in one run, 32 in flight: this 15,000 calls/s at 61 µs, blocking calls from 32 threads
9,000 at 129 µs, grpc.aio 17,800 at 58 µs. The last lost with 1 in flight (2,450 against 3,030), and
its timers are a millisecond wide. Calls on grpcio's private `cygrpc.Channel` reached 22,800 at
38 µs: a server faster than this is to be loaded with `h2load`.
"""

import itertools
import threading
import time
from collections.abc import Callable

import grpc

from weir.bench.plan import Plan, due_times_s
from weir.bench.tally import NOT_SENT, Tally, merge
from weir.client import defaults, errors, rpc

# In an open loop against a server that hangs, calls pile up here until their deadlines; beyond
# this many on one channel they are not sent, and counted.
MAX_IN_FLIGHT = 10_000

_clock = time.perf_counter


def run(plan: Plan, wait: Callable[[], object] = lambda: None) -> Tally:
    """Make every call of the plan and return what was measured.

    `wait` is called between connecting and starting; several processes meet there.

    Raises:
        CallError: the first call on a channel failed, so that the rest would be of no use.
    """
    lanes = [_Lane(plan) for _ in range(plan.connections)]
    try:
        for lane in lanes:
            lane.connect()
        wait()
        load = _closed_loop if plan.rate_per_s is None else _open_loop
        load(plan, lanes, _clock() + plan.warmup_s)
        for lane in lanes:
            lane.drain()
    finally:
        for lane in lanes:
            lane.close()
    return merge(lane.tally for lane in lanes)


def _closed_loop(plan: Plan, lanes: list["_Lane"], measured_from: float) -> None:
    numbers = itertools.count()
    until = measured_from + plan.duration_s

    def is_wanted(now: float) -> bool:
        if now < measured_from:
            return True
        # `next` of a counter is atomic, so the channels' threads share it without a lock.
        return next(numbers) < plan.requests if plan.requests else now < until

    lane_of = itertools.cycle(lanes)
    for _ in range(plan.concurrency):
        next(lane_of).chain(measured_from, is_wanted)


def _open_loop(plan: Plan, lanes: list["_Lane"], measured_from: float) -> None:
    lane_of = itertools.cycle(lanes)
    for due_s in due_times_s(plan):
        due = measured_from + due_s
        if (early_s := due - _clock()) > 0:
            time.sleep(early_s)
        next(lane_of).once(measured_from, due)


class _Lane:
    """One channel, with a connection of its own, and what was measured on it.

    Attributes:
        tally: written by the channel's thread, but for the lateness of sending.
    """

    def __init__(self, plan: Plan) -> None:
        # Without a pool of its own a channel to the same target would share its connection.
        pool = ("grpc.use_local_subchannel_pool", 1)
        self._channel = grpc.insecure_channel(
            plan.target, [*rpc.channel_options(defaults.MAX_MESSAGE_BYTES), pool]
        )
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        self._call = self._channel.unary_unary(plan.path)
        self._plan = plan
        self._started = 0
        self._finished = 0
        self._is_draining = False
        self._is_closed = False
        self._drained = threading.Event()
        self.tally = Tally()

    def connect(self) -> None:
        """Make the first call, unmeasured; it brings the connection up and tries the request."""
        try:
            self._call(self._plan.body, timeout=self._plan.timeout_s)
        except grpc.RpcError as error:
            raise errors.from_failure(error) from error

    def chain(self, measured_from: float, is_wanted: Callable[[float], bool]) -> None:
        """Call, and again at each end, as long as more is wanted."""
        self._started += 1

        def start(now: float) -> None:
            if self._is_closed or not is_wanted(now):
                self._finish()
                return
            call = self._call.future(self._plan.body, timeout=self._plan.timeout_s)
            call.add_done_callback(lambda _: end(call, now))

        def end(call: grpc.Call, began: float) -> None:
            now = _clock()
            self._record(call, began, now, measured_from)
            start(now)

        start(_clock())

    def once(self, measured_from: float, due: float) -> None:
        """Call once; the latency counts from `due`."""
        if self._started - self._finished >= MAX_IN_FLIGHT:
            self.tally.errors[NOT_SENT] += due >= measured_from
            return
        self._started += 1
        if due >= measured_from:
            self.tally.lateness_s.append(max(_clock() - due, 0.0))

        def end(_: "grpc.Future[bytes]") -> None:
            self._record(call, due, _clock(), measured_from)
            self._finish()

        call = self._call.future(self._plan.body, timeout=self._plan.timeout_s)
        call.add_done_callback(end)

    def drain(self) -> None:
        """Return when every call has ended, each at its deadline at the latest."""
        self._is_draining = True
        if self._finished == self._started:
            return
        self._drained.wait()

    def close(self) -> None:
        """Close the channel; calls in flight end now, and no others follow."""
        self._is_closed = True
        self._channel.close()

    def _record(self, call: grpc.Call, began: float, ended: float, measured_from: float) -> None:
        if began < measured_from:
            return
        status = call.code()
        if status is grpc.StatusCode.OK:
            self.tally.ends_s.append(ended - measured_from)
            self.tally.latencies_s.append(ended - began)
        else:
            self.tally.errors[status.name] += 1

    def _finish(self) -> None:
        self._finished += 1
        # `drain` sets its flag before it compares, so one of the two sees the last call end.
        if self._is_draining and self._finished == self._started:
            self._drained.set()
