"""The plain transport: grpcio's public `grpc.server`. The fallback, and the yardstick.

Threads: grpcio's pool, `weir-grpc_<n>`. An open unary call holds one of them until it is answered;
an open stream holds one that sends and starts one that reads.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from server.errors import PortUnavailable
from server.trail import Trail
from server.transport.call import STOPPING, Handlers, Limits, Metadata, Stream, Unary, guarded

_MAX_OPEN_CALLS = 512

_Sent = Callable[[], None] | None


class PublicCall:
    """A call on `grpc.server`; see `Call`."""

    trail: Trail | None = None

    def __init__(self, method: str, context: grpc.ServicerContext, messages: Any) -> None:
        self.method = method
        self._context = context
        self._incoming: queue.SimpleQueue[Callable[[bytes | None], None]] = queue.SimpleQueue()
        # Messages to send, then None.
        self._outgoing: queue.SimpleQueue[tuple[bytes, _Sent] | None] = queue.SimpleQueue()
        self._messages = messages
        self._lock = threading.Lock()
        self._ended = False
        self._on_close: Callable[[], None] | None = None
        self._reader: threading.Thread | None = None
        self.cancelled = not context.add_callback(self._closed)
        if self.cancelled:
            self._outgoing.put(None)

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
        with self._lock:
            if self._ended:
                return
            self.cancelled = True
            callback, self._on_close = self._on_close, None
            self._outgoing.put(None)
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


class PublicTransport:
    """A server on `grpc.server`; see `Transport`.

    Args:
        address: `host:port`; port 0 binds a free one.
        handlers: by full method name.
        limits: set on every connection.

    Raises:
        PortUnavailable: the address cannot be bound.
    """

    def __init__(self, address: str, handlers: Handlers, limits: Limits) -> None:
        self._dispatch = _Dispatch(handlers)
        pool = ThreadPoolExecutor(_MAX_OPEN_CALLS, thread_name_prefix="weir-grpc")
        self._server = grpc.server(
            pool,
            handlers=[self._dispatch],
            options=limits.channel_arguments(),
            maximum_concurrent_rpcs=_MAX_OPEN_CALLS,
        )
        try:
            self.port: int = self._server.add_insecure_port(address)
        except RuntimeError:
            raise PortUnavailable(f"cannot listen on {address}: is the port in use?") from None

    def start(self) -> None:
        """Begin to take calls."""
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Take no more calls, wait for open ones, cancel what is left after the grace."""
        stopped = self._server.stop(grace_s)
        self._dispatch.end_streams()
        stopped.wait(grace_s + 1.0)


class _Dispatch(grpc.GenericRpcHandler):
    """Finds the handler of a method."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._streams: set[PublicCall] = set()
        self._stopping = False

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        method = str(handler_call_details.method)
        handler = self._handlers.get(method)
        if handler is None:
            return None
        if isinstance(handler, Unary):
            return _unary(method, handler)
        return self._stream(method, handler)

    def end_streams(self) -> None:
        """End every open stream, and each that still comes."""
        self._stopping = True
        for call in self._streams.copy():
            call.finish(*STOPPING)

    def _stream(self, method: str, handler: Stream) -> "grpc.RpcMethodHandler[bytes, bytes]":
        def behaviour(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = PublicCall(method, context, messages)
            self._streams.add(call)
            if not context.add_callback(lambda: self._streams.discard(call)):
                self._streams.discard(call)
            guarded(call, handler.handle, call)
            if self._stopping:
                call.finish(*STOPPING)
            return call.answers()

        return grpc.stream_stream_rpc_method_handler(behaviour)


def _unary(method: str, handler: Unary) -> "grpc.RpcMethodHandler[bytes, bytes]":
    def behaviour(message: bytes, context: grpc.ServicerContext) -> bytes:
        call = PublicCall(method, context, iter(()))
        guarded(call, handler.handle, call, message)
        return next(call.answers(), b"")

    return grpc.unary_unary_rpc_method_handler(behaviour)
