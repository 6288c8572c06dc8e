"""The fast transport: gRPC core driven directly through grpcio's completion queue.

Thread: `weir-io`, the only one that polls. It starts every handler and every callback of this
module, and never blocks. Other threads send answers through the `Wakeups`.

grpcio keeps these calls private; its own server is built on them. They are therefore used only with
the tested versions of grpcio (`problem`).

Rules of the completion queue:
- Each operation batch ends in one event, whose tag is called with it.
- A call has at most one receive and one send under way at a time.
- Each call gets one close event, at its end. The event is cancelled if the client is gone.
- An event holds its call. It is dropped before the next poll, or a finished call keeps core awake.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc

from weir.server.errors import InvalidRequest, PortUnavailable, Unsupported
from weir.server.threads import SupervisedThread
from weir.server.transport.base import (
    Check,
    Handlers,
    Limits,
    Metadata,
    Stream,
    Unary,
    unavailable,
)
from weir.server.transport.call_stats import CallStats, MethodStats
from weir.server.transport.connections import Connections, metadata_bytes
from weir.server.transport.open_calls import OpenCalls
from weir.server.transport.status import STOPPING, closed_code, fail, guarded
from weir.server.transport.wakeups import Operations, Wakeups, ignore

try:
    from grpc._cython import cygrpc  # type: ignore[attr-defined]
except ImportError:  # a grpcio without it is served by grpc_server
    cygrpc = None

logger = logging.getLogger(__name__)

FIRST_TESTED, FIRST_UNTESTED = (1, 81), (1, 86)
TESTED = "grpcio>={}.{},<{}.{}".format(*FIRST_TESTED, *FIRST_UNTESTED)
"""The tested versions as pip takes them; `pyproject.toml` says the same."""
MAX_DELAY_S = 0.2
"""The upper bound of a measured delay; no measurement waits longer."""

_NEW_CALL, _SHUT_DOWN = "new call", "shut down"
_REQUESTED_CALLS = 128
_NO_FLAGS = 0
# Core's own threads read the sockets, so a message that has arrived may reach the queue a moment
# later.
_POLLS = 3
_TIMEOUT = 1  # cygrpc.CompletionType.queue_timeout
_CANCELLED: int = grpc.StatusCode.CANCELLED.value[0]
_NOTHING: deque[Any] = deque(maxlen=0)
# A deadline beyond this means that there is none: core then gives the largest number of seconds.
_NO_DEADLINE_S = 1e12


def problem() -> str | None:
    """Why this transport cannot be used with the installed grpcio, or None."""
    version = tuple(int(part) for part in grpc.__version__.split(".")[:2])
    if not FIRST_TESTED <= version < FIRST_UNTESTED:
        return f"expected {TESTED}, got {grpc.__version__}"
    names = (
        "Server",
        "CompletionQueue",
        "ReceiveCloseOnServerOperation",
        "ReceiveMessageOperation",
    )
    missing = [name for name in names if not hasattr(cygrpc, name)]
    return f"grpcio lacks {', '.join(missing)}" if missing else None


class CompletionQueueTransport:
    """A server on gRPC core; see `base.Transport`."""

    name = "completion-queue"

    def __init__(
        self,
        address: str,
        handlers: Handlers,
        limits: Limits,
        wakeups: Wakeups,
        checks: Sequence[Check] = (),
        *,
        credentials: grpc.ServerCredentials | None = None,
        socket_path: Path | None = None,
    ) -> None:
        self.calls = CallStats({name: handler.kind for name, handler in handlers.items()})
        self._open_calls = OpenCalls(limits)
        self.io = IoThread(wakeups, self._open_calls.calls)
        self._default_deadline_s = limits.default_deadline_s
        self.connections = Connections(
            limits.metadata_bytes, limits.connections_by_peer, socket_path
        )
        self._methods = {
            name.encode(): (handler, self.calls.of(name), isinstance(handler, Stream))
            for name, handler in handlers.items()
        }
        self._unknown = (None, self.calls.unknown, False)
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(limits.channel_arguments(), False)
        self._server.register_completion_queue(self._queue)
        self.port = self._bind(address, credentials)
        if not self.port:
            raise unavailable(address, limits, has_tls=credentials is not None)
        if socket_path is not None and not self._bind(f"unix:{socket_path}", None):
            raise PortUnavailable(f"cannot listen on unix:{socket_path}")
        self._stopped = threading.Event()
        # Core is still inside `shutdown` when its event comes: destroyed then, it would crash.
        self._shutdown_lock = threading.Lock()
        self._is_stopping = False
        self._wakeups = wakeups
        self._checks = tuple(checks)
        self._thread = SupervisedThread(target=self._run, name=IoThread.thread_name, daemon=True)

    def _bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Bind an address; its port, 1 for a unix socket, or 0 if it cannot be bound."""
        try:
            port: int = self._server.add_http2_port(
                address.encode(),
                None if credentials is None else credentials._credentials,  # type: ignore[attr-defined]  # noqa: SLF001 - as grpcio's own server does
            )
        except RuntimeError:
            return 0
        return port

    def start(self) -> None:
        """Begin to take calls."""
        self._server.start()
        self.connections.start(self.port)
        for _ in range(_REQUESTED_CALLS):
            self._request_call()
        self._thread.start()

    def expire(self, now: float) -> float:
        """End the calls whose message is late; the time of the next look."""
        return self._open_calls.expire(now)

    def close_port(self) -> None:
        """Accept no connections and no calls from now on; open calls go on until `stop`."""
        self._is_stopping = True
        with self._shutdown_lock:
            self._server.shutdown(self._queue, _SHUT_DOWN)

    def stop(self, grace_s: float) -> bool:
        """Refuse new calls, wait for open ones, and cancel the rest after the grace period."""
        self._open_calls.refuse_new()
        self.connections.stop()
        if self._thread.ident is None:
            # Core closes the port of a started server only.
            self._server.start()
            self._thread.start()
        for call in self.io.open_calls.copy():
            if call.is_stream:
                fail(call, STOPPING)
        is_drained = self._open_calls.wait_for_accepted(grace_s)
        # Before core's shutdown: core ends a call that arrives after it with CANCELLED.
        self.connections.end()
        self._is_stopping = True
        with self._shutdown_lock:
            self._server.shutdown(self._queue, _SHUT_DOWN)
        if not is_drained or not self._stopped.wait(1.0):
            with self._shutdown_lock:
                self._server.cancel_all_calls()
            self._stopped.wait(1.0)
        self._thread.join(1.0)
        return is_drained

    @property
    def open_calls(self) -> int:
        """The number of open calls."""
        return len(self.io.open_calls)

    def refuse_waiting(self, error: Exception, methods: tuple[str, ...]) -> int:
        """Refuse the calls whose first message has not arrived in full; returns how many."""
        return self._open_calls.refuse_waiting(error, methods)

    def _request_call(self) -> None:
        try:
            self._server.request_call(self._queue, self._queue, _NEW_CALL)
        except ValueError:
            # Another thread may shut the server down meanwhile: grpcio then raises this.
            if not self._is_stopping:
                raise

    def _run(self) -> None:
        wakeups, clock, io = self._wakeups, time.monotonic, self.io
        wakeups.adopt_thread()
        event = None
        woke_s = clock()
        while True:
            event = self._next_event()
            now = clock()
            if event is None:
                io.busy_s += now - woke_s
                event = self._queue.poll()
                wakeups.after_wait()
                woke_s = now = clock()
            tag = event.tag
            if tag is _SHUT_DOWN:
                break
            try:
                if tag is not _NEW_CALL:
                    tag(event)
                elif event.success:
                    self._begin(event, now)
            except Exception:  # a bug, in one call; the thread serves all calls
                logger.exception("transport event failed")
            event = tag = None
        with self._shutdown_lock:
            self._server.destroy()
        self._stopped.set()

    def _next_event(self) -> Any:
        """Start queued answers; return an event that has arrived, or None if the thread must wait.

        While requests are gathered, it polls for more events; see `Wakeups`.
        """
        wakeups = self._wakeups
        while True:
            wakeups.start_answers()
            if wakeups.gathering:
                if wakeups.should_poll():
                    for _ in range(_POLLS):
                        event = self._queue.poll(0.0)
                        if event.completion_type != _TIMEOUT:
                            wakeups.polled(has_found=True)
                            return event
                    wakeups.polled(has_found=False)
                wakeups.end_gathering()
            if wakeups.before_wait():
                return None

    def _begin(self, event: Any, arrived_s: float) -> None:
        if not self._is_stopping:
            self._request_call()
        details, metadata = event.call_details, event.invocation_metadata
        size = metadata_bytes(details.method, metadata)
        if size > self.connections.metadata_limit:
            # Not kept: at a hundred calls of 16 MiB, this would be the memory of the server.
            metadata = ()
        handler, stats, is_stream = self._methods.get(details.method, self._unknown)
        stats.started += 1
        call = CompletionQueueCall(
            event,
            metadata,
            self._wakeups,
            self._open_calls,
            stats,
            arrived_s,
            default_deadline_s=self._default_deadline_s if stats.kind != "bidi_stream" else None,
            is_stream=is_stream,
        )
        event.call.start_server_batch(
            (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), call.closed
        )
        if size > self.connections.metadata_limit:
            fail(call, self.connections.refuse_metadata(call.peer, size))
            return
        try:
            self._open_calls.add(call)
            for check in self._checks:
                check(call)
            if handler is None:
                raise Unsupported(f"unknown method {call.method[:200]}")  # noqa: TRY301 - as a check
        except Exception as error:  # noqa: BLE001 - ends this call only
            self._open_calls.received(call)
            fail(call, error)
            return
        if isinstance(handler, Unary):
            _receive_unary(call, handler)
        else:
            guarded(call, handler.handle, call)


def _receive_unary(call: "CompletionQueueCall", handler: Unary) -> None:
    def received(message: bytes | None) -> None:
        if message is None:
            raise InvalidRequest("expected one message, got none")
        handler.handle(call, message)

    call.receive(received)


class CompletionQueueCall:
    """A call on gRPC core; see `base.Call`. `open_calls` holds it until it is closed.

    Args:
        default_deadline_s: from its arrival on, if the client sets none; None for a bidirectional
            stream.
    """

    __slots__ = (
        "_call",
        "_code",
        "_deadline_s",
        "_default_deadline_s",
        "_has_ended",
        "_is_streaming",
        "_lock",
        "_metadata",
        "_method",
        "_on_close",
        "_on_message",
        "_open_calls",
        "_outgoing",
        "_stats",
        "_status",
        "_wakeups",
        "arrived_s",
        "caller",
        "cancelled",
        "is_stream",
    )

    record = None

    def __init__(  # noqa: PLR0917 - made once for each call; keywords cost time
        self,
        event: Any,
        metadata: Metadata,
        wakeups: Wakeups,
        open_calls: OpenCalls,
        stats: MethodStats,
        arrived_s: float,
        *,
        default_deadline_s: float | None,
        is_stream: bool,
    ) -> None:
        self.is_stream = is_stream
        self._call = event.call
        self._wakeups = wakeups
        self._open_calls = open_calls
        self._stats = stats
        self.arrived_s = arrived_s
        self._default_deadline_s = default_deadline_s
        self._code = _CANCELLED
        self._metadata = metadata
        # Core has just made a time of day of it, which jumps when the wall clock is set.
        self._deadline_s = arrived_s + event.call_details.deadline - time.time()
        self._method: bytes = event.call_details.method
        self.caller: Any = None
        self.cancelled = False
        self._lock = threading.Lock()
        self._has_ended = False
        self._on_close: Callable[[], None] | None = None
        self._on_message: Callable[[bytes | None], None] = _drop_message
        # Streams only: whether metadata went out, messages not yet sent, the status that waits.
        self._is_streaming = False
        self._outgoing: deque[tuple[bytes, Callable[[], None] | None]] = _NOTHING
        self._status: Operations = ()

    @property
    def method(self) -> str:
        """The full name, `/package.Service/Method`."""
        return self._method.decode("ascii", "replace")

    @property
    def peer(self) -> str:
        """The client's address, for logs."""
        return str(self._call.peer().decode("ascii", "replace"))

    @property
    def metadata(self) -> Metadata:
        """The client's metadata."""
        # grpcio's named tuples: a copy of them would cost as much as the check of a token.
        return self._metadata

    @property
    def has_ended(self) -> bool:
        """Whether its status was handed to core."""
        return self._has_ended

    def drop(self) -> None:
        """Cancel an ended call, and free its answer."""
        self._call.cancel(_CANCELLED, "the client did not read the answer")

    @property
    def may_rest(self) -> bool:
        """Whether its first message may come at any time: a bidirectional stream."""
        return self._default_deadline_s is None

    @property
    def has_deadline(self) -> bool:
        """Whether the client set a deadline."""
        return bool(self._deadline_s < _NO_DEADLINE_S)

    def time_left_s(self) -> float | None:
        """Seconds until the client's deadline, or the server's default."""
        if self._deadline_s < _NO_DEADLINE_S:
            return float(self._deadline_s - time.monotonic())
        if self._default_deadline_s is None:
            return None
        return self.arrived_s + self._default_deadline_s - time.monotonic()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Set the callback for a client that is gone."""
        with self._lock:
            if not self.cancelled:
                # An ended call gets no callback, and one that is kept would keep the call.
                if not self._has_ended:
                    self._on_close = callback
                return
        callback()

    def receive(self, callback: Callable[[bytes | None], None]) -> None:
        """Receive the stream's next message, or the one of a unary call."""
        self._on_message = callback
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), self._received)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Queue a message of the stream."""
        with self._lock:
            if self._has_ended:
                return
            if not self._is_streaming:
                self._is_streaming = True
                self._outgoing = deque()
                self._call.start_server_batch(
                    (cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),), ignore
                )
            self._outgoing.append((message, sent))
            if len(self._outgoing) == 1:
                self._send_first()

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """End the call; the queued messages of a stream go out before."""
        with self._lock:
            if self._has_ended or self.cancelled:
                return False
            self._has_ended = True
            self._on_close = None
            self._code = code.value[0]
            status = cygrpc.SendStatusFromServerOperation(
                trailers or None, self._code, details.encode(), _NO_FLAGS
            )
            if not self._is_streaming:
                start = cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS)
                operations = (
                    (start, status)
                    if message is None
                    else (start, cygrpc.SendMessageOperation(message, _NO_FLAGS), status)
                )
                self._wakeups.start(self._call, operations)
            elif self._outgoing:
                self._status = (status,)
            else:
                self._call.start_server_batch((status,), ignore)
        return True

    def closed(self, event: Any) -> None:
        """Tag of the close event, the last of the call."""
        callback = None
        open_s = time.monotonic() - self.arrived_s
        if event.batch_operations[0].cancelled():
            # A status that it has was not sent. An ended call gives None for its message, as one
            # without more messages does, and mostly before this event.
            left_s = self.time_left_s() if self.has_deadline else None
            with self._lock:
                self.cancelled = True
                callback, self._on_close = self._on_close, None
                self._code = closed_code(open_s, left_s).value[0]
        self._stats.ended(self._code, open_s)
        self._open_calls.discard(self)
        if callback is not None:
            callback()

    def start_probe(self, tag: Callable[[Any], None]) -> None:
        """Put an empty operation batch on the call; core ends it at once."""
        self._call.start_server_batch((), tag)

    def _received(self, event: Any) -> None:
        # Dropped at once: a callback that is kept ties the call to itself until the garbage
        # collector finds it.
        callback, self._on_message = self._on_message, _drop_message
        self._open_calls.waiting.pop(self, None)
        if self._has_ended and not self.is_stream:
            return
        guarded(self, callback, event.batch_operations[0].message())

    def _send_first(self) -> None:
        """Hand the oldest queued message to core; under the lock."""
        message, _ = self._outgoing[0]
        self._call.start_server_batch(
            (cygrpc.SendMessageOperation(message, _NO_FLAGS),), self._message_sent
        )

    def _message_sent(self, event: Any) -> None:
        with self._lock:
            _, sent = self._outgoing.popleft()
            if not event.success:
                self._outgoing.clear()
            elif self._outgoing:
                self._send_first()
            elif self._status:
                self._call.start_server_batch(self._status, ignore)
        if sent is not None:
            sent()


class IoThread:
    """The state of the I/O thread; only that thread writes, a scrape of the metrics reads.

    Attributes:
        open_calls: calls that have not been closed.
    """

    __slots__ = ("_wakeups", "busy_s", "open_calls")

    thread_name = "weir-io"

    def __init__(self, wakeups: Wakeups, open_calls: set[CompletionQueueCall]) -> None:
        self._wakeups = wakeups
        self.busy_s = 0.0
        self.open_calls = open_calls

    def delay_s(self) -> float:
        """How long an event waits for the thread now, at most `MAX_DELAY_S`; 0 if no call is open.

        It puts an empty operation batch on an open call. Core ends the batch at once, and its event
        waits in the same queue as all others.
        """
        arrived_s: list[float] = []
        arrived = threading.Event()

        def tag(_event: Any) -> None:
            arrived_s.append(time.monotonic())
            arrived.set()

        sent_s = time.monotonic()
        for call in self.open_calls.copy():
            # A call that has just ended, or whose server stops, takes no batch.
            with suppress(Exception):
                call.start_probe(tag)
                return arrived_s[0] - sent_s if arrived.wait(MAX_DELAY_S) else MAX_DELAY_S
        return 0.0

    def turns(self) -> float | None:
        """A number that changes when the thread turns, which an open call is used to make it do.

        None if no call is open and the thread waits. A thread that is stuck in core's poll is then
        noticed with the next call that is open.
        """
        for call in self.open_calls.copy():
            with suppress(Exception):  # as above
                call.start_probe(ignore)
                return self.busy_s
        return None if self._wakeups.is_waiting else self.busy_s


def _drop_message(_message: bytes | None) -> None:
    """Receives a message that no callback waits for."""
