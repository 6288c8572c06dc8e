"""The fast transport: gRPC core driven directly through grpcio's completion queue.

Thread: `weir-io`, the only one that polls. It starts every handler and every callback of this module
and never blocks. Answers come from whichever thread has them, through an `Outbox`.

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
from collections.abc import Callable
from typing import Any

import grpc

from weir.server.errors import PortUnavailable
from weir.server.transport.base import STOPPING, Handlers, Limits, Stream, Unary, guarded
from weir.server.transport.call_stats import Calls
from weir.server.transport.completion_queue_call import NO_FLAGS, CompletionQueueCall
from weir.server.transport.io_watch import IoWatch
from weir.server.transport.outbox import Outbox

try:
    from grpc._cython import cygrpc  # type: ignore[attr-defined]
except ImportError:  # a grpcio without it is served by the public transport
    cygrpc = None

logger = logging.getLogger(__name__)

FIRST_TESTED, FIRST_UNTESTED = (1, 81), (1, 86)

_NEW_CALL, _SHUT_DOWN = "new call", "shut down"
_CALLS_ASKED_FOR = 128


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


class CompletionQueueTransport:
    """A server on gRPC core; see `Transport`.

    Args:
        address: `host:port`; port 0 binds a free one.
        handlers: by full method name.
        limits: set on every connection.

    Raises:
        PortUnavailable: the address cannot be bound.
    """

    name = "completion-queue"

    def __init__(self, address: str, handlers: Handlers, limits: Limits) -> None:
        self.calls = Calls({name: handler.kind for name, handler in handlers.items()})
        self.io = IoWatch()
        self._methods = {
            name.encode(): (handler, self.calls.of(name)) for name, handler in handlers.items()
        }
        self._unknown = (None, self.calls.unknown)
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
        # Core is still inside `shutdown` when its event comes: destroyed then, it would crash.
        self._ending = threading.Lock()
        self._stopping = False
        self._streams: set[CompletionQueueCall] = set()
        self._outbox = Outbox()
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
        with self._ending:
            self._server.shutdown(self._queue, _SHUT_DOWN)
        for call in self._streams.copy():
            call.finish(*STOPPING)
        if not self._stopped.wait(grace_s):
            with self._ending:
                self._server.cancel_all_calls()
            self._stopped.wait(1.0)
        self._thread.join(1.0)

    def _ask_for_call(self) -> None:
        self._server.request_call(self._queue, self._queue, _NEW_CALL)

    def _run(self) -> None:
        self._outbox.adopt_thread()
        clock, io = time.monotonic, self.io
        event = None
        while True:
            event = self._queue.poll()
            woke_s = clock()
            tag = event.tag
            if tag is _SHUT_DOWN:
                break
            try:
                if tag is not _NEW_CALL:
                    tag(event)
                elif event.success:
                    self._begin(event, woke_s)
            except Exception:  # our bug, and one call's; the thread is everybody's
                logger.exception("event failed")
            event = tag = None
            io.busy_s += clock() - woke_s
        with self._ending:
            self._server.destroy()
        self._stopped.set()

    def _begin(self, event: Any, arrived_s: float) -> None:
        if not self._stopping:
            self._ask_for_call()
        handler, calls = self._methods.get(event.call_details.method, self._unknown)
        calls.started += 1
        self.io.latest = event.call
        call = CompletionQueueCall(event, self._outbox, self.io, calls, arrived_s)
        closed = call.closed if not isinstance(handler, Stream) else self._opened(call)
        event.call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), closed)
        if handler is None:
            call.finish(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {call.method[:200]}")
        elif isinstance(handler, Unary):
            self._receive_unary(call, handler)
        else:
            guarded(call, handler.handle, call)
            if self._stopping:
                call.finish(*STOPPING)

    def _opened(self, call: CompletionQueueCall) -> Callable[[Any], None]:
        """Keep a stream in mind until its close event, whose tag is returned."""

        def closed(event: Any) -> None:
            self._streams.discard(call)
            call.closed(event)

        self._streams.add(call)
        return closed

    def _receive_unary(self, call: CompletionQueueCall, handler: Unary) -> None:
        def received(message: bytes | None) -> None:
            if message is not None:
                handler.handle(call, message)
            else:
                call.finish(grpc.StatusCode.INVALID_ARGUMENT, "expected one message, got none")

        call.receive(received)
