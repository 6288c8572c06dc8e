"""A call on `grpc.server`. See `public`."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from weir.server.transport.base import Metadata, guarded
from weir.server.transport.call_stats import CANCELLED
from weir.server.transport.status import closed_code

_Sent = Callable[[], None] | None


class PublicCall:
    """A call on `grpc.server`; see `Call`.

    Args:
        method: its full name.
        context: grpcio's.
        messages: what the caller sends.
        ended: told the number of its status, once.
    """

    record = None

    def __init__(
        self,
        method: str,
        context: grpc.ServicerContext,
        messages: Any,
        ended: Callable[[int], None],
    ) -> None:
        self.method = method
        self._context = context
        self._tell_end = ended
        self._arrived_s = time.monotonic()
        self._code = CANCELLED
        self._incoming: queue.SimpleQueue[Callable[[bytes | None], None]] = queue.SimpleQueue()
        # Messages to send, then None.
        self._outgoing: queue.SimpleQueue[tuple[bytes, _Sent] | None] = queue.SimpleQueue()
        self._messages = messages
        self._lock = threading.Lock()
        self._ended = False
        self._on_close: Callable[[], None] | None = None
        self._reader: threading.Thread | None = None
        self.cancelled = False
        if not context.add_callback(self._closed):
            self._closed()

    @property
    def peer(self) -> str:
        """Where it comes from, for logs."""
        return str(self._context.peer())

    @property
    def metadata(self) -> Metadata:
        """What the caller sent beside the message."""
        return tuple((key, value) for key, value in self._context.invocation_metadata())

    def time_left_s(self) -> float | None:
        """Seconds until the caller's deadline; None if it set none."""
        left_s = self._context.time_remaining()
        return None if left_s is None or left_s > 1e9 else left_s

    def on_close(self, callback: Callable[[], None]) -> None:
        """Ask to be told when nobody waits any longer."""
        with self._lock:
            if not self.cancelled:
                if not self._ended:
                    self._on_close = callback
                return
        callback()

    def receive(self, callback: Callable[[bytes | None], None]) -> None:
        """Ask for the stream's next message."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, name="weir-read", daemon=True)
            self._reader.start()
        self._incoming.put(callback)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Queue a message of the stream."""
        with self._lock:
            if not self._ended:
                self._outgoing.put((message, sent))

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
            self._context.set_code(code)
            self._context.set_details(details)
            if trailers:
                self._context.set_trailing_metadata(trailers)
            if message is not None:
                self._outgoing.put((message, None))
            self._outgoing.put(None)
        return True

    def answers(self) -> Iterator[bytes]:
        """The messages to send, until the call is finished or nobody waits."""
        while (item := self._outgoing.get()) is not None:
            message, sent = item
            yield message
            if sent is not None:
                sent()

    def _closed(self) -> None:
        """Called by grpcio at the end of every call, however it ends."""
        # Frees the reading thread, whatever it waits for.
        self._incoming.put(lambda _: None)
        callback = None
        with self._lock:
            if not self._ended:
                self.cancelled = True
                callback, self._on_close = self._on_close, None
                self._outgoing.put(None)
                open_s = time.monotonic() - self._arrived_s
                self._code = closed_code(open_s, self.time_left_s()).value[0]
        self._tell_end(self._code)
        if callback is not None:
            callback()

    def _read(self) -> None:
        while True:
            callback = self._incoming.get()
            try:
                message = next(self._messages, None)
            except grpc.RpcError:
                message = None
            guarded(self, callback, message)
            if message is None:
                return
