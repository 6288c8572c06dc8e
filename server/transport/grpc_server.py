"""The portable transport: grpcio's public `grpc.server`; it works with any grpcio.

Threads: grpcio's pool, `weir-grpc_<n>`. An open unary call holds one of them until it is answered.
An open stream holds one that sends, and starts one that reads, `weir-read`.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

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
from weir.server.transport.call_stats import CallStats
from weir.server.transport.status import STOPPING, closed_code, fail, guarded

_MAX_OPEN_CALLS = 512

_Sent = Callable[[], None] | None


class GrpcServerTransport:
    """A server on `grpc.server`; see `base.Transport`."""

    name = "grpc-server"
    io = None

    def __init__(
        self,
        address: str,
        handlers: Handlers,
        limits: Limits,
        checks: Sequence[Check] = (),
        *,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.calls = CallStats({name: handler.kind for name, handler in handlers.items()})
        self._is_started = False
        self._dispatch = _Dispatch(handlers, self.calls, checks)
        self._server = grpc.server(
            ThreadPoolExecutor(_MAX_OPEN_CALLS, thread_name_prefix="weir-grpc"),
            handlers=[self._dispatch],
            options=limits.channel_arguments(),
            maximum_concurrent_rpcs=_MAX_OPEN_CALLS,
        )
        try:
            self.port: int = (
                self._server.add_insecure_port(address)
                if credentials is None
                else self._server.add_secure_port(address, credentials)
            )
        except RuntimeError:
            raise unavailable(address, limits, has_tls=credentials is not None) from None

    def start(self) -> None:
        """Begin to take calls."""
        self._is_started = True
        self._server.start()

    def close_port(self) -> None:
        """Accept no connections and no calls from now on; open calls go on until `stop`."""
        self._server.stop(threading.TIMEOUT_MAX)

    def stop(self, grace_s: float) -> bool:
        """Accept no calls, wait for open ones, and cancel the rest after the grace period."""
        if not self._is_started:
            # grpcio closes the port of a started server only.
            self.start()
        stopped = self._server.stop(grace_s)
        self._dispatch.end_streams()
        is_drained = stopped.wait(grace_s)
        stopped.wait(1.0)
        return is_drained


class _Dispatch(grpc.GenericRpcHandler):
    """Finds the handler of a method."""

    def __init__(self, handlers: Handlers, calls: CallStats, checks: Sequence[Check]) -> None:
        self._handlers = handlers
        self._checks = tuple(checks)
        self._calls = calls
        # Calls begin and end on many threads.
        self._stats_lock = threading.Lock()
        self._streams: set[GrpcServerCall] = set()
        self._is_stopping = False

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        headers = _CallHeaders(handler_call_details)
        method = headers.method
        try:
            for check in self._checks:
                check(headers)
        except Exception as error:  # noqa: BLE001 - ends this call only
            return self._refuse(method, error)
        handler = self._handlers.get(method)
        if handler is None:
            # grpcio itself answers this status.
            self._begin(method)(grpc.StatusCode.UNIMPLEMENTED)
            return None
        if isinstance(handler, Unary):
            return self._unary(headers, handler)
        return self._stream(headers, handler)

    def _refuse(self, method: str, error: Exception) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """The handler of a call that a check refused; a stream, as no message is received."""
        ended = self._begin(method)

        def behaviour(_messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = GrpcServerCall(method, context, iter(()), ended)
            fail(call, error)
            return call.answers()

        return grpc.stream_stream_rpc_method_handler(behaviour)

    def end_streams(self) -> None:
        """End every open stream, and each that opens later."""
        self._is_stopping = True
        for call in self._streams.copy():
            fail(call, STOPPING)

    def _begin(self, method: str) -> Callable[[grpc.StatusCode], None]:
        """Count a call; returns what counts its end."""
        stats, arrived_s = self._calls.of(method), time.monotonic()

        def ended(code: grpc.StatusCode) -> None:
            with self._stats_lock:
                stats.ended(code.value[0], time.monotonic() - arrived_s)

        with self._stats_lock:
            stats.started += 1
        return ended

    def _unary(
        self, headers: "_CallHeaders", handler: Unary
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        method = headers.method

        def behaviour(message: bytes, context: grpc.ServicerContext) -> bytes:
            call = GrpcServerCall(method, context, iter(()), self._begin(method))
            call.caller = headers.caller
            guarded(call, handler.handle, call, message)
            answer = next(call.answers(), None)
            if answer is None and call.failure is not None:
                # grpcio would send the message that this function returns before the status, and a
                # client does not retry a call whose answer has begun.
                context.abort(*call.failure)
            return answer or b""

        return grpc.unary_unary_rpc_method_handler(behaviour)

    def _stream(
        self, headers: "_CallHeaders", handler: Stream
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        method = headers.method

        def behaviour(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = GrpcServerCall(method, context, messages, self._begin(method))
            call.caller = headers.caller
            self._streams.add(call)
            if not context.add_callback(lambda: self._streams.discard(call)):
                self._streams.discard(call)
            guarded(call, handler.handle, call)
            if self._is_stopping:
                fail(call, STOPPING)
            return call.answers()

        return grpc.stream_stream_rpc_method_handler(behaviour)


class _CallHeaders:
    """The headers of a call; see `base.Headers`. grpcio tells the peer only later."""

    peer = ""

    def __init__(self, details: grpc.HandlerCallDetails) -> None:
        self._details = details
        self.caller: Any = None
        self.method = str(details.method)

    @property
    def metadata(self) -> Metadata:
        return tuple((key, value) for key, value in self._details.invocation_metadata)


class GrpcServerCall:
    """A call on `grpc.server`; see `base.Call`. It calls `ended` once, with its status.

    Attributes:
        failure: status and details of a call that was finished with another status than OK.
    """

    record = None

    def __init__(
        self,
        method: str,
        context: grpc.ServicerContext,
        messages: Any,
        ended: Callable[[grpc.StatusCode], None],
    ) -> None:
        self.method = method
        self._context = context
        self._count_end = ended
        self._arrived_s = time.monotonic()
        self._code = grpc.StatusCode.CANCELLED
        self._incoming: queue.SimpleQueue[Callable[[bytes | None], None]] = queue.SimpleQueue()
        # Messages to send, then None.
        self._outgoing: queue.SimpleQueue[tuple[bytes, _Sent] | None] = queue.SimpleQueue()
        self._messages = messages
        self._lock = threading.Lock()
        self._has_ended = False
        self._on_close: Callable[[], None] | None = None
        self._reader: threading.Thread | None = None
        self.caller: Any = None
        self.cancelled = False
        self.failure: tuple[grpc.StatusCode, str] | None = None
        if not context.add_callback(self._closed):
            self._closed()

    @property
    def peer(self) -> str:
        """The client's address, for logs."""
        return str(self._context.peer())

    @property
    def metadata(self) -> Metadata:
        """The client's metadata."""
        return tuple((key, value) for key, value in self._context.invocation_metadata())

    def time_left_s(self) -> float | None:
        """Seconds until the client's deadline; None if it set none."""
        left_s = self._context.time_remaining()
        return None if left_s is None or left_s > 1e9 else left_s

    def on_close(self, callback: Callable[[], None]) -> None:
        """Set the callback for a client that is gone."""
        with self._lock:
            if not self.cancelled:
                if not self._has_ended:
                    self._on_close = callback
                return
        callback()

    def receive(self, callback: Callable[[bytes | None], None]) -> None:
        """Receive the stream's next message."""
        if self._reader is None:
            self._reader = SupervisedThread(target=self._read, name="weir-read", daemon=True)
            self._reader.start()
        self._incoming.put(callback)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Queue a message of the stream."""
        with self._lock:
            if not self._has_ended:
                self._outgoing.put((message, sent))

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
            self._code = code
            if code is not grpc.StatusCode.OK:
                self.failure = code, details
            self._context.set_code(code)
            self._context.set_details(details)
            if trailers:
                self._context.set_trailing_metadata(trailers)
            if message is not None:
                self._outgoing.put((message, None))
            self._outgoing.put(None)
        return True

    def answers(self) -> Iterator[bytes]:
        """The messages to send, until the call is finished or its client is gone."""
        while (item := self._outgoing.get()) is not None:
            message, sent = item
            yield message
            if sent is not None:
                sent()

    def _closed(self) -> None:
        """Called by grpcio at the end of every call."""
        # Ends the reading thread, even while it waits.
        self._incoming.put(lambda _: None)
        callback = None
        with self._lock:
            if not self._has_ended:
                self.cancelled = True
                callback, self._on_close = self._on_close, None
                self._outgoing.put(None)
                self._code = closed_code(time.monotonic() - self._arrived_s, self.time_left_s())
        self._count_end(self._code)
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
