"""The fast transport: gRPC core driven directly through grpcio's completion queue.

Thread: `weir-io`, the only one that polls. It starts every handler and every callback of this module
and never blocks. Answers are started from whichever thread has them.

The module is private to grpcio, hence the range of versions it was tested with, checked before use
(`problem`). grpcio's own server is built on the same calls.

Rules of the completion queue:
- Each operation batch ends in one event, whose tag is called with it.
- A call has at most one receive and one send under way at a time.
- The close event comes once, at the end of each call; it is cancelled when nobody waits.
- An event holds its call; it is dropped before the next poll, or a finished call keeps core awake.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc

from server.errors import PortUnavailable
from server.transport.call import Handlers, Limits, Metadata, Unary, guarded

try:
    from grpc._cython import cygrpc  # type: ignore[attr-defined]
except ImportError:  # a grpcio without it is served by the public transport
    cygrpc = None

logger = logging.getLogger(__name__)

FIRST_TESTED, FIRST_UNTESTED = (1, 81), (1, 86)

_NEW_CALL, _SHUT_DOWN = "new call", "shut down"
_CALLS_ASKED_FOR = 128
_NO_FLAGS = 0
_NEVER_S = 1e12
"""Deadlines come as seconds since the epoch; this far away means there is none."""


def problem() -> str | None:
    """Why this transport cannot be used with the installed grpcio, or None."""
    version = tuple(int(part) for part in grpc.__version__.split(".")[:2])
    if not FIRST_TESTED <= version < FIRST_UNTESTED:
        return f"grpcio {grpc.__version__} is outside the tested range"
    names = (
        "Server",
        "CompletionQueue",
        "ReceiveCloseOnServerOperation",
        "ReceiveMessageOperation",
    )
    missing = [name for name in names if not hasattr(cygrpc, name)]
    return f"grpcio lacks {', '.join(missing)}" if missing else None


def _ignore(_event: Any) -> None:
    """Tag of operations whose end changes nothing."""


class CompletionQueueCall:
    """A call on gRPC core; see `Call`."""

    __slots__ = (
        "_call",
        "_deadline_s",
        "_ended",
        "_is_streaming",
        "_lock",
        "_metadata",
        "_on_close",
        "_outgoing",
        "_status",
        "cancelled",
        "method",
    )

    def __init__(self, event: Any) -> None:
        self._call = event.call
        self._metadata = event.invocation_metadata
        self._deadline_s = event.call_details.deadline
        self.method: str = event.call_details.method.decode("ascii", "replace")
        self.cancelled = False
        self._lock = threading.Lock()
        self._ended = False
        self._on_close: Callable[[], None] | None = None
        # Streams only: whether metadata went out, messages not yet sent, the status that waits.
        self._is_streaming = False
        self._outgoing: deque[tuple[bytes, Callable[[], None] | None]] = deque()
        self._status: tuple[Any, ...] = ()

    @property
    def peer(self) -> str:
        """Where it comes from, for logs."""
        return str(self._call.peer().decode("ascii", "replace"))

    @property
    def metadata(self) -> Metadata:
        """What the caller sent beside the message."""
        return tuple((key, value) for key, value in self._metadata)

    def time_left_s(self) -> float | None:
        """Seconds until the caller's deadline; None if it set none."""
        return self._deadline_s - time.time() if self._deadline_s < _NEVER_S else None

    def on_close(self, callback: Callable[[], None]) -> None:
        """Ask to be told when nobody waits any longer."""
        with self._lock:
            if not self.cancelled:
                self._on_close = callback
                return
        callback()

    def receive(self, callback: Callable[[bytes | None], None]) -> None:
        """Ask for the stream's next message."""

        def received(event: Any) -> None:
            callback(event.batch_operations[0].message())

        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), received)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Queue a message of the stream."""
        with self._lock:
            if self._ended:
                return
            if not self._is_streaming:
                self._is_streaming = True
                self._call.start_server_batch(
                    (cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),), _ignore
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
        """End the call; whatever was queued on a stream goes out before."""
        with self._lock:
            if self._ended or self.cancelled:
                return False
            self._ended = True
            self._on_close = None
            status = cygrpc.SendStatusFromServerOperation(
                trailers or None, code.value[0], details.encode(), _NO_FLAGS
            )
            if not self._is_streaming:
                start = cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS)
                operations = (
                    (start, status)
                    if message is None
                    else (start, cygrpc.SendMessageOperation(message, _NO_FLAGS), status)
                )
                self._call.start_server_batch(operations, _ignore)
            elif self._outgoing:
                self._status = (status,)
            else:
                self._call.start_server_batch((status,), _ignore)
        return True

    def closed(self, event: Any) -> None:
        """Tag of the close event."""
        if not event.batch_operations[0].cancelled():
            return
        with self._lock:
            self.cancelled = True
            callback, self._on_close = self._on_close, None
        if callback is not None:
            callback()

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
                self._call.start_server_batch(self._status, _ignore)
        if sent is not None:
            sent()


class CompletionQueueTransport:
    """A server on gRPC core; see `Transport`.

    Args:
        address: `host:port`; port 0 binds a free one.
        handlers: by full method name.
        limits: set on every connection.

    Raises:
        PortUnavailable: the address cannot be bound.
    """

    def __init__(self, address: str, handlers: Handlers, limits: Limits) -> None:
        self._handlers = handlers
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(limits.channel_arguments(), False)
        self._server.register_completion_queue(self._queue)
        try:
            self.port: int = self._server.add_http2_port(address.encode())
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise PortUnavailable(f"cannot listen on {address}: is the port in use?")
        self._stopped = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="weir-io", daemon=True)

    def start(self) -> None:
        """Begin to take calls."""
        self._server.start()
        for _ in range(_CALLS_ASKED_FOR):
            self._ask_for_call()
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """Take no more calls, wait for open ones, cancel what is left after the grace."""
        self._stopping = True
        self._server.shutdown(self._queue, _SHUT_DOWN)
        if not self._stopped.wait(grace_s):
            self._server.cancel_all_calls()
            self._stopped.wait(1.0)
        self._thread.join(1.0)

    def _ask_for_call(self) -> None:
        self._server.request_call(self._queue, self._queue, _NEW_CALL)

    def _run(self) -> None:
        event = None
        while True:
            event = self._queue.poll()
            tag = event.tag
            if tag is _NEW_CALL:
                if event.success:
                    self._begin(event)
            elif tag is _SHUT_DOWN:
                break
            else:
                try:
                    tag(event)
                except Exception:
                    logger.exception("callback failed")
            event = tag = None
        self._server.destroy()
        self._stopped.set()

    def _begin(self, event: Any) -> None:
        if not self._stopping:
            self._ask_for_call()
        call = CompletionQueueCall(event)
        event.call.start_server_batch(
            (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), call.closed
        )
        handler = self._handlers.get(call.method)
        if handler is None:
            call.finish(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {call.method[:200]}")
        elif isinstance(handler, Unary):
            self._receive_unary(call, handler)
        else:
            guarded(call, handler.handle, call)

    def _receive_unary(self, call: CompletionQueueCall, handler: Unary) -> None:
        def received(message: bytes | None) -> None:
            if message is not None:
                guarded(call, handler.handle, call, message)
            else:
                call.finish(grpc.StatusCode.INVALID_ARGUMENT, "expected one message, got none")

        call.receive(received)
