"""A call on gRPC core. See `completion_queue`."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc

from weir.server.transport.base import Metadata, guarded
from weir.server.transport.call_stats import CANCELLED, MethodCalls
from weir.server.transport.io_watch import IoWatch
from weir.server.transport.outbox import Outbox, ignore
from weir.server.transport.status import closed_code

try:
    from grpc._cython import cygrpc  # type: ignore[attr-defined]
except ImportError:  # a grpcio without it is served by the public transport
    cygrpc = None

NO_FLAGS = 0
_NOTHING: deque[Any] = deque(maxlen=0)
_NEVER_S = 1e12
"""Deadlines come as seconds since the epoch; this far away means there is none."""


def _no_message(_message: bytes | None) -> None:
    """What a call does with a message that nobody asked for."""


class CompletionQueueCall:
    """A call on gRPC core; see `Call`.

    Args:
        event: of the new call.
        outbox: through which its answer goes.
        io: told when it is over.
        calls: of its method.
        arrived_s: when it came, on the monotonic clock.
    """

    __slots__ = (
        "_arrived_s",
        "_call",
        "_calls",
        "_code",
        "_deadline_s",
        "_ended",
        "_io",
        "_is_streaming",
        "_lock",
        "_metadata",
        "_method",
        "_on_close",
        "_on_message",
        "_outbox",
        "_outgoing",
        "_status",
        "cancelled",
    )

    record = None

    def __init__(
        self, event: Any, outbox: Outbox, io: IoWatch, calls: MethodCalls, arrived_s: float
    ) -> None:
        self._call = event.call
        self._outbox = outbox
        self._io = io
        self._calls = calls
        self._arrived_s = arrived_s
        self._code = CANCELLED
        self._metadata = event.invocation_metadata
        self._deadline_s = event.call_details.deadline
        self._method: bytes = event.call_details.method
        self.cancelled = False
        self._lock = threading.Lock()
        self._ended = False
        self._on_close: Callable[[], None] | None = None
        self._on_message: Callable[[bytes | None], None] = _no_message
        # Streams only: whether metadata went out, messages not yet sent, the status that waits.
        self._is_streaming = False
        self._outgoing: deque[tuple[bytes, Callable[[], None] | None]] = _NOTHING
        self._status: tuple[Any, ...] = ()

    @property
    def method(self) -> str:
        """The full name, `/package.Service/Method`."""
        return self._method.decode("ascii", "replace")

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
                # Of an ended call nobody hears again, and a callback kept would keep the call.
                if not self._ended:
                    self._on_close = callback
                return
        callback()

    def receive(self, callback: Callable[[bytes | None], None]) -> None:
        """Ask for the stream's next message, or for the one of a unary call."""
        self._on_message = callback
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._received)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Queue a message of the stream."""
        with self._lock:
            if self._ended:
                return
            if not self._is_streaming:
                self._is_streaming = True
                self._outgoing = deque()
                self._call.start_server_batch(
                    (cygrpc.SendInitialMetadataOperation(None, NO_FLAGS),), ignore
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
            self._code = code.value[0]
            status = cygrpc.SendStatusFromServerOperation(
                trailers or None, self._code, details.encode(), NO_FLAGS
            )
            if not self._is_streaming:
                start = cygrpc.SendInitialMetadataOperation(None, NO_FLAGS)
                operations = (
                    (start, status)
                    if message is None
                    else (start, cygrpc.SendMessageOperation(message, NO_FLAGS), status)
                )
                self._outbox.start(self._call, operations)
            elif self._outgoing:
                self._status = (status,)
            else:
                self._call.start_server_batch((status,), ignore)
        return True

    def closed(self, event: Any) -> None:
        """Tag of the close event, the call's last word."""
        callback = None
        open_s = time.monotonic() - self._arrived_s
        if event.batch_operations[0].cancelled():
            with self._lock:
                self.cancelled = True
                callback, self._on_close = self._on_close, None
                if not self._ended:
                    self._code = closed_code(open_s, self.time_left_s()).value[0]
        self._calls.ended(self._code, open_s)
        if self._io.latest is self._call:
            self._io.latest = None
        if callback is not None:
            callback()

    def _received(self, event: Any) -> None:
        # Forgotten at once: kept, it would tie the call to itself, for the garbage collector to find.
        callback, self._on_message = self._on_message, _no_message
        guarded(self, callback, event.batch_operations[0].message())

    def _send_first(self) -> None:
        """Hand the oldest queued message to core; under the lock."""
        message, _ = self._outgoing[0]
        self._call.start_server_batch(
            (cygrpc.SendMessageOperation(message, NO_FLAGS),), self._message_sent
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
