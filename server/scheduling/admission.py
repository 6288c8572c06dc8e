"""From a call to its place in a model's queue."""

import time
from collections.abc import Callable
from typing import TypeVar

from weir.server.errors import (
    Cancelled,
    DeadlineExceeded,
    Draining,
    ModelNotReady,
    Overloaded,
)
from weir.server.protocol import request_decoder
from weir.server.scheduling.request import Model, ReceivedRequest
from weir.server.scheduling.unpacking import SMALL_BYTES, Unpacker
from weir.server.telemetry.metrics import Metrics
from weir.server.telemetry.request_record import Reply
from weir.server.transport.status import status_of

M = TypeVar("M", bound=Model)


class Admission:
    """Admits requests to the schedulers of their models.

    Args:
        find_model: the model of a name and a version; see `Repository.get`.
        metrics: counts what is refused before one is found.
        default_deadline_s: for a caller that sets none.
        max_waiting_bytes: of large messages that wait to be unpacked.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        find_model: Callable[[str, str], Model],
        metrics: Metrics,
        *,
        default_deadline_s: float,
        max_waiting_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find_model = find_model
        self._metrics = metrics
        self._default_deadline_s = default_deadline_s
        self.clock = clock
        self._unpacker = Unpacker(self._unpack, max_waiting_bytes=max_waiting_bytes)
        self.is_draining = False

    def start(self) -> None:
        """Start the thread that unpacks large messages."""
        self._unpacker.start()

    def drain(self) -> None:
        """Refuse new requests from now on."""
        self.is_draining = True

    def admit(
        self,
        payload: bytes,
        reply: Reply,
        time_left_s: float | None,
        admitted: Callable[[Callable[[], None]], None],
        send: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Check a request and queue it; every failure is sent to its caller.

        Args:
            payload: a `ModelInferRequest`.
            reply: where the answer goes.
            time_left_s: until the caller's own deadline, or None.
            admitted: called with what frees the request's place when its caller leaves.
            send: puts a part of the answer on a stream; None where there is none.
        """
        now = self.clock()
        deadline_s = now + self.left_s(time_left_s)
        arrival = ReceivedRequest(payload, reply, now, deadline_s, admitted, send, self.clock)
        try:
            self._unpacker.accept(arrival)
        except Overloaded as error:
            self.refuse(error, reply, None, now, len(payload))

    def _unpack(self, arrival: ReceivedRequest) -> None:
        model = None
        try:
            self._check_wanted(arrival)
            message = request_decoder.parse_request(arrival.payload)
            request_decoder.check_id(message.id)
            if (record := arrival.reply.record) is not None:
                record.parsed(message.model_name, message.model_version, message.id)
            model = self.find(message.model_name, message.model_version)
            while True:
                try:
                    request = model.request(message, arrival)
                    request.submit()
                    break
                except Draining as error:
                    model = successor(error, model, message.model_version, self.find)
        except Exception as error:  # noqa: BLE001 - the one place where admission may fail
            self.refuse(error, arrival.reply, model, arrival.arrived_s, len(arrival.payload))
            return
        arrival.admitted(request.cancel)

    def _check_wanted(self, arrival: ReceivedRequest) -> None:
        """A large message may have waited longer than its caller."""
        if arrival.reply.cancelled:
            raise Cancelled("the caller hung up")
        if len(arrival.payload) > SMALL_BYTES and arrival.deadline_s <= self.clock():
            raise DeadlineExceeded("the deadline passed before the message was unpacked")

    def find(self, name: str, version: str) -> Model:
        """The model that answers, unless the server is stopping; see `Repository.get`."""
        if self.is_draining:
            raise Draining("the server is stopping")
        return self._find_model(name, version)

    def left_s(self, time_left_s: float | None) -> float:
        """The time a request has: its caller's, or the server's own word where that sets none."""
        return self._default_deadline_s if time_left_s is None else time_left_s

    def refuse(
        self,
        error: Exception,
        reply: Reply,
        model: Model | None,
        arrived_s: float,
        request_bytes: int,
    ) -> None:
        """Answer a request that never reached a queue, and lay it to its model's account."""
        refusal = status_of(error)
        reply.finish(refusal.code, refusal.details, trailers=refusal.trailers)
        numbers = self._metrics.unattributed if model is None else model.metrics
        if isinstance(error, ModelNotReady) and error.model is not None:
            numbers = self._metrics.find(*error.model)
        numbers.request_failed(
            refusal.code.name, refusal.reason, self.clock() - arrived_s, request_bytes
        )


def successor(error: Draining, model: M, version: str, find: Callable[[str, str], M]) -> M:
    """What took the place of a model that was unloaded after it was found.

    Args:
        error: of its closed queue.
        model: that was found.
        version: that was asked for.
        find: the model of a name and a version.

    Raises:
        RequestError: nothing did.
    """
    found = find(model.name, version)
    if found is model:
        raise error
    return found
