"""The portable transport: grpcio's public `grpc.server`; it works with any grpcio.

Threads: grpcio's pool, `weir-grpc_<n>`. An open unary call holds one of them until it is answered.
An open stream holds one that sends, and starts one that reads, `weir-read`.

Every call is a bidirectional stream for grpcio. Otherwise it calls a unary handler with the message
only, and a call whose message never comes would hold its thread for ever.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc

from weir.server.errors import Draining, InvalidRequest, PortUnavailable
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
from weir.server.transport.connections import Connections, metadata_bytes
from weir.server.transport.open_calls import MORE_PROBES, OpenCalls
from weir.server.transport.status import STOPPING, closed_code, fail, guarded

_MAX_OPEN_CALLS = 512
_CLOSING_S = 0.1

# Calls that are refused hold a thread for a moment too.
_THREADS = _MAX_OPEN_CALLS + 2 * MORE_PROBES

# grpcio gives a call without a deadline the largest number of seconds.
_NO_DEADLINE_S = 1e9

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
        socket_path: Path | None = None,
    ) -> None:
        self.calls = CallStats({name: handler.kind for name, handler in handlers.items()})
        self.connections = Connections(
            limits.metadata_bytes, limits.connections_by_peer, socket_path
        )
        self._is_started = False
        limits = replace(limits, open_calls=min(limits.open_calls, _MAX_OPEN_CALLS))
        self._open_calls = OpenCalls(limits)
        self._dispatch = _Dispatch(
            handlers,
            self.calls,
            checks,
            limits,
            connections=self.connections,
            open_calls=self._open_calls,
        )
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="weir-grpc"),
            handlers=[self._dispatch],
            options=limits.channel_arguments(),
            maximum_concurrent_rpcs=_THREADS,
        )
        try:
            self.port: int = (
                self._server.add_insecure_port(address)
                if credentials is None
                else self._server.add_secure_port(address, credentials)
            )
        except RuntimeError:
            raise unavailable(address, limits, has_tls=credentials is not None) from None
        if socket_path is not None:
            try:
                self._server.add_insecure_port(f"unix:{socket_path}")
            except RuntimeError:
                raise PortUnavailable(f"cannot listen on unix:{socket_path}") from None

    def start(self) -> None:
        """Begin to take calls."""
        self._is_started = True
        self._server.start()
        self.connections.start(self.port)

    def expire(self, now: float) -> float:
        """End the calls whose message is late; the time of the next look."""
        return self._open_calls.expire(now)

    @property
    def open_calls(self) -> int:
        """The number of open calls."""
        return len(self._open_calls.calls)

    def refuse_waiting(self, error: Exception, methods: tuple[str, ...]) -> int:
        """Refuse the calls whose first message has not arrived in full; returns how many."""
        return self._open_calls.refuse_waiting(error, methods)

    def close_port(self) -> None:
        """Accept no connections and no calls from now on; open calls go on until `stop`."""
        self._server.stop(threading.TIMEOUT_MAX)

    def stop(self, grace_s: float) -> bool:
        """Refuse new calls, wait for open ones, and cancel the rest after the grace period."""
        self._open_calls.refuse_new()
        if not self._is_started:
            # grpcio closes the port of a started server only.
            self.start()
        self.connections.stop()
        self._dispatch.end_streams()
        is_drained = self._open_calls.wait_for_accepted(grace_s)
        # Before core's shutdown: core ends a call that arrives after it with CANCELLED.
        self.connections.end()
        self._server.stop(0.0 if not is_drained else 1.0).wait(1.0)
        return is_drained


class _Dispatch(grpc.GenericRpcHandler):
    """Finds the handler of a method."""

    def __init__(
        self,
        handlers: Handlers,
        calls: CallStats,
        checks: Sequence[Check],
        limits: Limits,
        *,
        connections: Connections,
        open_calls: OpenCalls,
    ) -> None:
        self._handlers = handlers
        self._connections = connections
        self._checks = tuple(checks)
        self._calls = calls
        self._open_calls = open_calls
        self._default_deadline_s = limits.default_deadline_s
        # Calls begin and end on many threads.
        self._stats_lock = threading.Lock()
        self._attacked_s = -_CLOSING_S
        self._streams: set[GrpcServerCall] = set()
        self._is_stopping = False

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        headers = _CallHeaders(handler_call_details)
        method = headers.method
        size = metadata_bytes(method, handler_call_details.invocation_metadata)
        if size > self._connections.metadata_limit:
            if self._connections.is_attack(size):
                now = time.monotonic()
                if now < self._attacked_s + _CLOSING_S:
                    # A thread of the pool closes the connection now. Each call that is handed to
                    # the pool meanwhile would keep its metadata, up to 16 MiB.
                    self._count_unimplemented(method)
                    return None
                self._attacked_s = now
            return self._refuse(headers, lambda peer: self._connections.refuse_metadata(peer, size))
        try:
            for check in self._checks:
                check(headers)
            if self._is_stopping:
                raise Draining(*STOPPING.args)  # noqa: TRY301 - as a check
        except Exception as error:  # noqa: BLE001 - ends this call only
            failure = error
            return self._refuse(headers, lambda _peer: failure)
        handler = self._handlers.get(method)
        if handler is None:
            self._count_unimplemented(method)
            return None
        if isinstance(handler, Unary):
            return self._unary(headers, handler)
        return self._stream(headers, handler)

    def _count_unimplemented(self, method: str) -> None:
        """Count a call that grpcio itself answers with this status, as it has no handler."""
        self._begin(method)(grpc.StatusCode.UNIMPLEMENTED)

    def _refuse(
        self, headers: "_CallHeaders", failure: Callable[[str], Exception]
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """The handler of a call that is refused by its headers, with the failure of its peer.

        It is a stream's, as no message is received.
        """

        def behaviour(_messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = self._open(headers, context, iter(()), None)
            self._open_calls.received(call)
            fail(call, failure(call.peer))
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
        def behaviour(
            messages: Iterator[bytes],
            context: grpc.ServicerContext,
            send: Callable[[bytes | None], None],
        ) -> None:
            call = self._open(headers, context, messages, self._default_deadline_s, send)
            message = call.wait_for_message()
            if call.is_answered_early:
                return
            if message is None:
                fail(call, InvalidRequest("expected one message, got none"))
            elif not call.has_ended:
                guarded(call, handler.handle, call, message)
            for answer in call.answers():
                send(answer)
            send(None)

        return grpc.stream_stream_rpc_method_handler(_NonBlocking(behaviour))

    def _stream(
        self, headers: "_CallHeaders", handler: Stream
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        default_s = self._default_deadline_s if handler.kind == "server_stream" else None

        def behaviour(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = self._open(headers, context, messages, default_s)
            self._streams.add(call)
            if not context.add_callback(lambda: self._streams.discard(call)):
                self._streams.discard(call)
            if not call.has_ended:
                guarded(call, handler.handle, call)
            if self._is_stopping:
                fail(call, STOPPING)
            return call.answers()

        return grpc.stream_stream_rpc_method_handler(behaviour)

    def _open(
        self,
        headers: "_CallHeaders",
        context: grpc.ServicerContext,
        messages: Iterator[bytes],
        default_deadline_s: float | None,
        send: Callable[[bytes | None], None] | None = None,
    ) -> "GrpcServerCall":
        """A call that counts as open; it has ended at once if too many are."""
        ended = self._begin(headers.method)
        call = GrpcServerCall(
            headers.method,
            context,
            messages,
            ended,
            open_calls=self._open_calls,
            default_deadline_s=default_deadline_s,
            send=send,
        )
        call.caller = headers.caller
        guarded(call, self._open_calls.add, call)
        if call.cancelled:  # it was closed before it was added
            self._open_calls.discard(call)
        return call


class _NonBlocking:
    """A behaviour that gets a function with which it sends; grpcio's health service is one too.

    Its other behaviours return their answers, so only their own thread can end a call.
    """

    experimental_non_blocking = True

    def __init__(self, behaviour: Callable[..., None]) -> None:
        self._behaviour = behaviour

    def __call__(
        self,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        send_response_callback: Callable[[bytes | None], None],
    ) -> None:
        self._behaviour(messages, context, send_response_callback)


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

    Args:
        default_deadline_s: from its arrival on, if the client sets none; None for a bidirectional
            stream.
        send: sends a message, or the status for None; of a call whose thread waits for its message,
            and therefore sends no status.

    Attributes:
        is_answered_early: whether the status was sent before the message came.
    """

    record = None

    def __init__(
        self,
        method: str,
        context: grpc.ServicerContext,
        messages: Any,
        ended: Callable[[grpc.StatusCode], None],
        *,
        open_calls: OpenCalls,
        default_deadline_s: float | None = None,
        send: Callable[[bytes | None], None] | None = None,
    ) -> None:
        self.method = method
        self._context = context
        self._count_end = ended
        self._open_calls = open_calls
        self._default_deadline_s = default_deadline_s
        self._send = send
        self.is_answered_early = False
        self.arrived_s = time.monotonic()
        # Read once: grpcio compares a time of day, which jumps when the wall clock is set.
        left_s = context.time_remaining()
        has_deadline = left_s is not None and left_s < _NO_DEADLINE_S
        self._deadline_s = self.arrived_s + left_s if has_deadline else None
        self._code = grpc.StatusCode.CANCELLED
        self._incoming: queue.SimpleQueue[Callable[[bytes | None], None]] = queue.SimpleQueue()
        # Messages to send, then None.
        self._outgoing: queue.SimpleQueue[tuple[bytes, _Sent] | None] = queue.SimpleQueue()
        self._messages = messages
        self._lock = threading.Lock()
        self.has_ended = False
        self._on_close: Callable[[], None] | None = None
        self._reader: threading.Thread | None = None
        self.caller: Any = None
        self.cancelled = False
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

    def drop(self) -> None:
        """Cancel an ended call, and free its answer."""
        self._context.cancel()

    @property
    def may_rest(self) -> bool:
        """Whether its first message may come at any time: a bidirectional stream."""
        return self._default_deadline_s is None

    @property
    def has_deadline(self) -> bool:
        """Whether the client set a deadline."""
        return self._client_left_s() is not None

    def time_left_s(self) -> float | None:
        """Seconds until the client's deadline, or the server's default."""
        left_s = self._client_left_s()
        if left_s is not None or self._default_deadline_s is None:
            return left_s
        return self.arrived_s + self._default_deadline_s - time.monotonic()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Set the callback for a client that is gone."""
        with self._lock:
            if not self.cancelled:
                if not self.has_ended:
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
            if not self.has_ended:
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
            if self.has_ended or self.cancelled:
                return False
            self.has_ended = True
            self._on_close = None
            self._code = code
            self._context.set_code(code)
            self._context.set_details(details)
            if trailers:
                self._context.set_trailing_metadata(trailers)
            if message is not None:
                self._outgoing.put((message, None))
            self._outgoing.put(None)
            send, self._send = self._send, None
            self.is_answered_early = send is not None
        if send is not None:
            send(None)
        return True

    def wait_for_message(self) -> bytes | None:
        """The message of a unary call; None if there is none, or the call has ended."""
        message: bytes | None = None
        with suppress(grpc.RpcError):  # the client is gone
            message = next(self._messages, None)
        with self._lock:
            self._send = None
        self._open_calls.received(self)
        return message

    def answers(self) -> Iterator[bytes]:
        """The messages to send, until the call is finished or its client is gone."""
        while (item := self._outgoing.get()) is not None:
            message, sent = item
            yield message
            if sent is not None:
                sent()

    def _client_left_s(self) -> float | None:
        return None if self._deadline_s is None else self._deadline_s - time.monotonic()

    def _closed(self) -> None:
        """Called by grpcio at the end of every call."""
        self._open_calls.discard(self)
        # Ends the reading thread, even while it waits.
        self._incoming.put(lambda _: None)
        callback = None
        is_sent = not _is_cancelled(self._messages)
        with self._lock:
            if not self.has_ended:
                self.cancelled = True
                callback, self._on_close = self._on_close, None
                self._outgoing.put(None)
            if self.cancelled or not is_sent:
                open_s = time.monotonic() - self.arrived_s
                self._code = closed_code(open_s, self._client_left_s())
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
            self._open_calls.received(self)
            guarded(self, callback, message)
            if message is None:
                return


def _is_cancelled(messages: Iterator[bytes]) -> bool:
    """Whether a closed call ended without a status: the client was gone, or its deadline passed.

    A status that was given does not say it. An ended call has no next message, as one without more
    messages has none, and its close is often known a moment later. grpcio then raises here.
    """
    try:
        next(messages, None)
    except grpc.RpcError:
        return True
    return False
