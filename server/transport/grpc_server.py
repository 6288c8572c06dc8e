"""The plain transport: grpcio's public `grpc.server`. The fallback, and the yardstick.

Threads: grpcio's pool, `weir-grpc_<n>`. An open unary call holds one of them until it is answered;
an open stream holds one that sends and starts one that reads.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from weir.server.errors import PortUnavailable
from weir.server.transport.base import STOPPING, Handlers, Limits, Stream, Unary, guarded
from weir.server.transport.call_stats import UNIMPLEMENTED, Calls
from weir.server.transport.grpc_server_call import PublicCall

_MAX_OPEN_CALLS = 512


class PublicTransport:
    """A server on `grpc.server`; see `Transport`.

    Args:
        address: `host:port`; port 0 binds a free one.
        handlers: by full method name.
        limits: set on every connection.

    Raises:
        PortUnavailable: the address cannot be bound.
    """

    name = "public"
    io = None

    def __init__(self, address: str, handlers: Handlers, limits: Limits) -> None:
        self.calls = Calls({name: handler.kind for name, handler in handlers.items()})
        self._dispatch = _Dispatch(handlers, self.calls)
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

    def __init__(self, handlers: Handlers, calls: Calls) -> None:
        self._handlers = handlers
        self._calls = calls
        # Calls begin and end on many threads.
        self._counting = threading.Lock()
        self._streams: set[PublicCall] = set()
        self._stopping = False

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        method = str(handler_call_details.method)
        handler = self._handlers.get(method)
        if handler is None:
            self._begun(method)(UNIMPLEMENTED)
            return None
        if isinstance(handler, Unary):
            return self._unary(method, handler)
        return self._stream(method, handler)

    def end_streams(self) -> None:
        """End every open stream, and each that still comes."""
        self._stopping = True
        for call in self._streams.copy():
            call.finish(*STOPPING)

    def _begun(self, method: str) -> Callable[[int], None]:
        """Count a call; what is to be told its status at its end."""
        calls, arrived_s = self._calls.of(method), time.monotonic()

        def ended(code: int) -> None:
            with self._counting:
                calls.ended(code, time.monotonic() - arrived_s)

        with self._counting:
            calls.started += 1
        return ended

    def _unary(self, method: str, handler: Unary) -> "grpc.RpcMethodHandler[bytes, bytes]":
        def behaviour(message: bytes, context: grpc.ServicerContext) -> bytes:
            call = PublicCall(method, context, iter(()), self._begun(method))
            guarded(call, handler.handle, call, message)
            return next(call.answers(), b"")

        return grpc.unary_unary_rpc_method_handler(behaviour)

    def _stream(self, method: str, handler: Stream) -> "grpc.RpcMethodHandler[bytes, bytes]":
        def behaviour(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = PublicCall(method, context, messages, self._begun(method))
            self._streams.add(call)
            if not context.add_callback(lambda: self._streams.discard(call)):
                self._streams.discard(call)
            guarded(call, handler.handle, call)
            if self._stopping:
                call.finish(*STOPPING)
            return call.answers()

        return grpc.stream_stream_rpc_method_handler(behaviour)
