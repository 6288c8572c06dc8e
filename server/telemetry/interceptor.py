"""The interceptor: selects requests for the access log and for traces, and records them.

If neither is configured, there is no interceptor and every request's record is None. Otherwise a
selected call is wrapped when it arrives, and the wrapper exports the record when the call ends.

The interceptor covers every unary call of the inference, task and model services, `Generate`, and
each request on a `ModelStreamInfer`. A call that ends before its message has come carries no
request and leaves no record. The access log takes a random share of all requests. Traces
take every request whose caller samples its trace (`traceparent` with the flag "sampled"), none
whose caller does not sample it, and a random share of the requests without a `traceparent`.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from weir.server.telemetry.request_record import Reply, RequestRecord, read_context
from weir.server.transport.base import Call, Handlers, Metadata, Stream, Unary
from weir.server.transport.status import guarded


@dataclass(frozen=True, slots=True)
class SampleRates:
    """Shares of the requests to record, from 0 to 1.

    Attributes:
        logged: share of all requests that the access log gets.
        traced: share of the requests without a `traceparent` that are traced; None: no traces.
    """

    logged: float
    traced: float | None


class Interceptor:
    """Attaches a record to each selected request.

    Args:
        export: receives each record once its request has ended; must not block.
        draw: a random number in [0, 1).
    """

    def __init__(
        self,
        export: Callable[[RequestRecord], None],
        rates: SampleRates,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._export = export
        self._rates = rates
        self._clock = clock
        self._draw = draw

    def intercept(self, handlers: Handlers, *, except_stream: str) -> Handlers:
        """Wrap handlers so that their calls are recorded.

        Args:
            handlers: by full method name; each stream carries one request.
            except_stream: the method whose stream carries many requests; see `intercept_reply`.
        """
        return {
            name: handler if name == except_stream else self._intercept(handler)
            for name, handler in handlers.items()
        }

    def intercept_reply(self, call: Call, reply: Reply, request_bytes: int) -> Reply:
        """Wrap the reply to one request of a stream, if the request is selected."""
        record = self._begin(call, request_bytes)
        return reply if record is None else RecordedReply(reply, record, self._end)

    def _intercept(self, handler: Unary | Stream) -> Unary | Stream:
        if isinstance(handler, Unary):
            unary = handler.handle

            def handle(call: Call, payload: bytes) -> None:
                recorded = self._record(call, len(payload))
                guarded(recorded, unary, recorded, payload)

            return Unary(handle)
        stream = handler.handle
        return Stream(lambda call: stream(self._record(call)), kind=handler.kind)

    def _record(self, call: Call, request_bytes: int = 0) -> Call:
        record = self._begin(call, request_bytes)
        return call if record is None else RecordedCall(call, record, self._end)

    def _begin(self, call: Call, request_bytes: int) -> RequestRecord | None:
        rates = self._rates
        is_logged = self._draw() < rates.logged
        if rates.traced is None and not is_logged:
            return None
        parent = read_context(call.metadata)
        is_traced = rates.traced is not None and (
            parent.is_sampled if parent else self._draw() < rates.traced
        )
        if not (is_logged or is_traced):
            return None
        return RequestRecord(
            method=call.method,
            peer=call.peer,
            parent=parent,
            is_logged=is_logged,
            is_traced=is_traced,
            began_ns=time.time_ns(),
            began_s=self._clock(),
            request_bytes=request_bytes,
            token="" if call.caller is None else call.caller.name,
        )

    def _end(self, record: RequestRecord, code: grpc.StatusCode) -> None:
        record.code, record.ended_s = code, self._clock()
        self._export(record)


End = Callable[[RequestRecord, grpc.StatusCode], None]


class RecordedReply:
    """A reply that exports the request's record when it is finished.

    Args:
        end: called once, by the first `finish`.
    """

    def __init__(self, reply: Reply, record: RequestRecord, end: End) -> None:
        self.record = record
        self.caller = reply.caller
        self._reply = reply
        self._end = end
        # An answer and a deadline may finish a reply on two threads at once.
        self._lock = threading.Lock()
        self._has_ended = False

    @property
    def cancelled(self) -> bool:
        """Whether the client no longer waits."""
        return self._reply.cancelled

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """Send the answer or a status, and export the record."""
        is_sent = self._reply.finish(code, details, message=message, trailers=trailers)
        with self._lock:
            is_first, self._has_ended = not self._has_ended, True
        if is_first:
            if is_sent and message is not None:
                self.record.response_bytes += len(message)
            is_lost = code is grpc.StatusCode.OK and not is_sent
            self._end(self.record, grpc.StatusCode.CANCELLED if is_lost else code)
        return is_sent

    def forget(self) -> None:
        """Export no record: the request never came."""
        with self._lock:
            self._has_ended = True


class RecordedCall:
    """A call that exports the request's record when it ends; see `Call`."""

    def __init__(self, call: Call, record: RequestRecord, end: End) -> None:
        self.record = record
        self.caller = call.caller
        self.method = record.method
        self.peer = record.peer
        self.time_left_s = call.time_left_s
        self.on_close = call.on_close
        self._call = call
        self._reply = RecordedReply(call, record, end)
        self.finish = self._reply.finish

    @property
    def metadata(self) -> Metadata:
        """Metadata of the client."""
        return self._call.metadata

    @property
    def cancelled(self) -> bool:
        """Whether the client is gone or its deadline passed."""
        return self._call.cancelled

    def receive(self, callback: Callable[[bytes | None], None]) -> None:
        """Receive the one message of a stream."""

        def received(message: bytes | None) -> None:
            if message is None:
                self._reply.forget()
            else:
                self.record.request_bytes += len(message)
            callback(message)

        self._call.receive(received)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Send one of several messages."""
        self.record.response_bytes += len(message)
        self._call.send(message, sent)
