"""Which requests somebody wants to hear of, and how their end is noticed.

With neither the log of requests nor traces asked for, there is no `Interceptor`, and calls have the record None, which is all that
is looked at on their way. Otherwise a call that is followed is wrapped where it arrives: what ends it ends its record.

Every unary call of the inference, task and model services is followed, `Generate`, and each request on a `ModelStreamInfer`
by itself. The log takes a share of all requests, drawn by lot, whatever becomes of them. Traces take those whose caller traces
them (`traceparent` with the flag "sampled"), none of those whose caller decided not to, and a share of the others.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from weir.server.telemetry.request_record import Reply, RequestRecord
from weir.server.telemetry.trace_context import read_context
from weir.server.transport.base import Call, Handlers, Metadata, Stream, Unary
from weir.server.transport.status import guarded


@dataclass(frozen=True, slots=True)
class SampleRates:
    """How many requests are told of, from 0 for none to 1 for all.

    Attributes:
        logged: of all requests.
        traced: of those whose caller leaves it to the server; None: no request is traced.
    """

    logged: float
    traced: float | None


class Interceptor:
    """Lays records.

    Args:
        tell: hears of each record once its request has ended; must not wait.
        rates: of the requests.
        clock: monotonic seconds.
        draw: a number from 0 up to, not including, 1.
    """

    def __init__(
        self,
        tell: Callable[[RequestRecord], None],
        rates: SampleRates,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._tell = tell
        self._rates = rates
        self._clock = clock
        self._draw = draw

    def intercept(self, handlers: Handlers, *, except_stream: str) -> Handlers:
        """The same handlers, their calls followed.

        Args:
            handlers: by full method name; a stream brings one request.
            except_stream: the method whose stream brings many.
        """
        return {
            name: handler if name == except_stream else self._intercept(handler)
            for name, handler in handlers.items()
        }

    def intercept_reply(self, call: Call, reply: Reply, request_bytes: int) -> Reply:
        """Where the answer to one request of a stream goes, followed if it is to be."""
        record = self._begin(call, request_bytes)
        return reply if record is None else RecordedReply(reply, record, self._end)

    def _intercept(self, handler: Unary | Stream) -> Unary | Stream:
        if isinstance(handler, Unary):
            unary = handler.handle

            def handle(call: Call, payload: bytes) -> None:
                followed = self._follow(call, len(payload))
                guarded(followed, unary, followed, payload)

            return Unary(handle)
        stream = handler.handle
        return Stream(lambda call: stream(self._follow(call)))

    def _follow(self, call: Call, request_bytes: int = 0) -> Call:
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
        )

    def _end(self, record: RequestRecord, code: grpc.StatusCode) -> None:
        record.code, record.ended_s = code, self._clock()
        self._tell(record)


End = Callable[[RequestRecord, grpc.StatusCode], None]


class RecordedReply:
    """A reply whose end is told; see `pending.Reply`.

    Args:
        reply: that is followed.
        record: of its request.
        end: is told of the first end, and of no other.
    """

    def __init__(self, reply: Reply, record: RequestRecord, end: End) -> None:
        self.record = record
        self._reply = reply
        self._end = end
        self._has_ended = False

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any longer."""
        return self._reply.cancelled

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """Send the answer, or a status, and tell of it."""
        is_heard = self._reply.finish(code, details, message=message, trailers=trailers)
        if self._has_ended:
            return is_heard
        self._has_ended = True
        if is_heard and message is not None:
            self.record.response_bytes += len(message)
        is_lost = code is grpc.StatusCode.OK and not is_heard
        self._end(self.record, grpc.StatusCode.CANCELLED if is_lost else code)
        return is_heard


class RecordedCall:
    """A call whose end is told; see `Call`.

    Args:
        call: that is followed.
        record: of its one request.
        end: is told of the first end, and of no other.
    """

    def __init__(self, call: Call, record: RequestRecord, end: End) -> None:
        self.record = record
        self.method = record.method
        self.peer = record.peer
        self.time_left_s = call.time_left_s
        self.on_close = call.on_close
        self._call = call
        self.finish = RecordedReply(call, record, end).finish

    @property
    def metadata(self) -> Metadata:
        """What the caller sent beside the message."""
        return self._call.metadata

    @property
    def cancelled(self) -> bool:
        """Whether the caller is gone or its deadline passed."""
        return self._call.cancelled

    def receive(self, callback: Callable[[bytes | None], None]) -> None:
        """Ask for the message of a stream."""

        def received(message: bytes | None) -> None:
            self.record.request_bytes += len(message or b"")
            callback(message)

        self._call.receive(received)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Send one of several messages."""
        self.record.response_bytes += len(message)
        self._call.send(message, sent)
