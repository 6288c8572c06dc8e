"""Load generator: makes the calls of a plan, in one process or several, and measures them.

The request is serialised once; responses are not parsed. Each channel has one thread, gRPC's own,
which records a call's end and, in a closed loop, starts the next call. In an open loop the thread
of `run_here` paces the calls; it sleeps between them.

Cost on 2 cores shared with an echo server on gRPC core's completion queue (grpcio 1.85, 3 KB
requests, best of six): 32 in flight 15,400 calls/s at 53 µs of CPU each, 1 in flight 5,300 at
107 µs, 32 over 4 connections 11,000. An open loop wakes up for each call: 173 µs at 2,000 calls/s,
sent 0.6 ms late at p99, and 7 ms at 5,000. The report states the lateness; more processes reduce it
if there are cores for them.

Alternatives, in the same run with 32 in flight: this generator 15,000 calls/s at 61 µs, blocking
calls from 32 threads 9,000 at 129 µs, grpc.aio 17,800 at 58 µs. grpc.aio was slower with 1 in
flight (2,450 against 3,030), and its timers have a resolution of a millisecond. Calls on grpcio's
private `cygrpc.Channel` reached 22,800 at 38 µs: measure a faster server with `h2load`.
"""

import itertools
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import grpc

from weir.bench.plan import Plan, due_times_s
from weir.bench.tally import NOT_SENT, Tally, merge
from weir.client import defaults, errors
from weir.client.connection import CallContext, open_channel

# If the server hangs, the calls of an open loop pile up until their deadlines. Calls beyond this
# number on one channel are counted as not sent.
MAX_IN_FLIGHT = 10_000

_BARRIER_TIMEOUT_S = 60.0

_clock = time.perf_counter


def run(plan: Plan, processes: int) -> Tally:
    """Make the plan's calls, divided among processes; a single process is this one."""
    if processes == 1:
        return run_here(plan)
    # gRPC does not survive a fork.
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    started, receivers = [], []
    for share in plan.shares(processes):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(share, barrier, sender), daemon=True)
        process.start()
        sender.close()
        started.append(process)
        receivers.append(receiver)
    try:
        return merge(_checked([_receive(receiver) for receiver in receivers]))
    finally:
        for process in started:
            process.terminate()
            process.join()


def run_here(plan: Plan, wait: Callable[[], object] = lambda: None) -> Tally:
    """Make the plan's calls from this process.

    `wait` runs between connecting and starting: there processes wait for each other.

    Raises:
        CallError: the first call on a channel failed, so the others would fail too.
    """
    channels = [_MeasuredChannel(plan) for _ in range(plan.connections)]
    try:
        for channel in channels:
            channel.connect()
        wait()
        load = _closed_loop if plan.rate_per_s is None else _open_loop
        load(plan, channels, _clock() + plan.warmup_s)
        for channel in channels:
            channel.drain()
    finally:
        for channel in channels:
            channel.close()
    return merge(channel.tally for channel in channels)


def _closed_loop(plan: Plan, channels: list["_MeasuredChannel"], measured_from: float) -> None:
    numbers = itertools.count()
    until = measured_from + plan.duration_s

    def is_due(now: float) -> bool:
        if now < measured_from:
            return True
        # `next` of a counter is atomic, so the channels' threads share it without a lock.
        return next(numbers) < plan.requests if plan.requests else now < until

    next_channel = itertools.cycle(channels)
    for _ in range(plan.concurrency):
        next(next_channel).chain(measured_from, is_due)


def _open_loop(plan: Plan, channels: list["_MeasuredChannel"], measured_from: float) -> None:
    next_channel = itertools.cycle(channels)
    for due_s in due_times_s(plan):
        due = measured_from + due_s
        if (early_s := due - _clock()) > 0:
            time.sleep(early_s)
        next(next_channel).once(measured_from, due)


class _MeasuredChannel:
    """A channel with its own connection, and the measurements of its calls.

    The channel's thread writes the `tally`, but for the lateness of sending.
    """

    def __init__(self, plan: Plan) -> None:
        self._context = CallContext(
            plan.target,
            timeout_s=plan.timeout_s,
            metadata=plan.headers,
            tls=plan.tls,
            token_file=plan.token_file,
        )
        self._channel = open_channel(self._context, defaults.MAX_MESSAGE_BYTES)
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
        """Make an unmeasured first call, which opens the connection and tests the request."""
        with self._context:
            self._call(self._plan.body, **self._context.options())

    def chain(self, measured_from: float, is_due: Callable[[float], bool]) -> None:
        """Make calls one after the other until `is_due` is false."""
        self._started += 1

        def start(now: float) -> None:
            if self._is_closed or not is_due(now):
                self._finish()
                return
            call = self._call.future(self._plan.body, **self._context.options())
            call.add_done_callback(lambda _: end(call, now))

        def end(call: grpc.Call, began: float) -> None:
            now = _clock()
            self._record(call, began, now, measured_from)
            start(now)

        start(_clock())

    def once(self, measured_from: float, due: float) -> None:
        """Make one call; its latency counts from `due`."""
        if self._started - self._finished >= MAX_IN_FLIGHT:
            self.tally.errors[NOT_SENT] += due >= measured_from
            return
        self._started += 1
        if due >= measured_from:
            self.tally.lateness_s.append(max(_clock() - due, 0.0))

        def end(_: "grpc.Future[bytes]") -> None:
            self._record(call, due, _clock(), measured_from)
            self._finish()

        call = self._call.future(self._plan.body, **self._context.options())
        call.add_done_callback(end)

    def drain(self) -> None:
        """Wait until every call has ended, at the latest at its deadline."""
        self._is_draining = True
        if self._finished != self._started:
            self._drained.wait()

    def close(self) -> None:
        """Close the channel: calls in flight are cancelled and no others start."""
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
            if status.name not in self.tally.messages:
                self.tally.messages[status.name] = str(self._context.error_of(call))

    def _finish(self) -> None:
        self._finished += 1
        # `drain` sets its flag before it compares, so this method or `drain` sees the last end.
        if self._is_draining and self._finished == self._started:
            self._drained.set()


def _work(plan: Plan, barrier: Barrier, sender: "Connection[object, object]") -> None:
    # Ctrl-C reaches the whole process group; the parent terminates its children itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sender.send(run_here(plan, lambda: barrier.wait(_BARRIER_TIMEOUT_S)))
    except errors.WeirError as error:
        sender.send(error)
        barrier.abort()
    except threading.BrokenBarrierError:
        sender.send(None)


def _receive(receiver: "Connection[object, object]") -> object:
    try:
        return receiver.recv()
    except EOFError:
        return None


def _checked(results: list[object]) -> list[Tally]:
    """The tallies of all processes; the error of one if a process failed."""
    tallies = [result for result in results if isinstance(result, Tally)]
    if len(tallies) == len(results):
        return tallies
    for result in results:
        if isinstance(result, errors.WeirError):
            raise result
    raise errors.WeirError("a process of the load generator ended without a result")
