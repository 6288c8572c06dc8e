"""From a call to its place in a model's queue."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from weir.protocol import inference_pb2 as pb
from weir.server.errors import (
    Cancelled,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    ModelNotReady,
    Overloaded,
)
from weir.server.generation.request import read_request
from weir.server.generation.served import ServedPair
from weir.server.protocol import inference, parameters, request_decoder
from weir.server.repository.repository import Repository
from weir.server.repository.served_model import ServedModel
from weir.server.scheduling.pending import Reply
from weir.server.scheduling.unpacking import SMALL_BYTES, Unpacker
from weir.server.telemetry.metrics import Metrics
from weir.server.transport.status import status_of

Model = TypeVar("Model", bound=ServedModel | ServedPair)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it arrived.

    Attributes:
        payload: a `ModelInferRequest`.
        reply: where its answer goes.
        arrived_s: on the admission's clock.
        deadline_s: after which nobody wants it.
        admitted: called with what frees the request's place when its caller leaves.
        send: puts a part of the answer on a stream; None where there is none.
    """

    payload: bytes
    reply: Reply
    arrived_s: float
    deadline_s: float
    admitted: Callable[[Callable[[], None]], None]
    send: Callable[[bytes], bool] | None = None


class Admission:
    """Admits requests to the schedulers of their models.

    Args:
        repository: finds the model.
        metrics: counts what is refused before one is found.
        default_deadline_s: for a caller that sets none.
        max_waiting_bytes: of large messages that wait to be unpacked.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        repository: Repository,
        metrics: Metrics,
        *,
        default_deadline_s: float,
        max_waiting_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
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
        arrival = Arrival(payload, reply, now, now + self.left_s(time_left_s), admitted, send)
        try:
            self._unpacker.accept(arrival)
        except Overloaded as error:
            self.refuse(error, reply, None, now, len(payload))

    def _unpack(self, arrival: Arrival) -> None:
        model = None
        try:
            self._check_wanted(arrival)
            message = request_decoder.parse_request(arrival.payload)
            parameters.check_id(message.id)
            if (record := arrival.reply.record) is not None:
                record.parsed(message.model_name, message.model_version, message.id)
            model = self.find(message.model_name, message.model_version)
            while True:
                try:
                    cancel = self._submit(message, model, arrival)
                    break
                except Draining as error:
                    model = successor(error, model, message.model_version, self.find)
        except Exception as error:  # noqa: BLE001 - the one place where admission may fail
            self.refuse(error, arrival.reply, model, arrival.arrived_s, len(arrival.payload))
            return
        arrival.admitted(cancel)

    def _submit(
        self, message: pb.ModelInferRequest, model: ServedModel | ServedPair, arrival: Arrival
    ) -> Callable[[], None]:
        """Queue a request; what cancels it."""
        if isinstance(model, ServedPair):
            generated = read_request(
                message,
                model,
                arrival.reply,
                send=arrival.send,
                arrived_s=arrival.arrived_s,
                deadline_s=arrival.deadline_s,
                request_bytes=len(arrival.payload),
                clock=self.clock,
            )
            generated.submit()
            return generated.cancel
        request = inference.read_request(
            message,
            model,
            arrival.reply,
            arrived_s=arrival.arrived_s,
            deadline_s=arrival.deadline_s,
            request_bytes=len(arrival.payload),
            clock=self.clock,
        )
        request.submit()
        return request.cancel

    def _check_wanted(self, arrival: Arrival) -> None:
        """A large message may have waited longer than its caller."""
        if arrival.reply.cancelled:
            raise Cancelled("the caller hung up")
        if len(arrival.payload) > SMALL_BYTES and arrival.deadline_s <= self.clock():
            raise DeadlineExceeded("the deadline passed before the message was unpacked")

    def find(self, name: str, version: str) -> ServedModel | ServedPair:
        """The model that answers, unless the server is stopping; see `Repository.get`."""
        if self.is_draining:
            raise Draining("the server is stopping")
        return self._repository.get(name, version)

    def find_graph(self, name: str, version: str) -> ServedModel:
        """Likewise, for a call that a pair cannot answer."""
        model = self.find(name, version)
        if isinstance(model, ServedPair):
            raise InvalidRequest(f"model {name!r} makes sequences of sequences: ask Generate")
        return model

    def left_s(self, time_left_s: float | None) -> float:
        """The time a request has: its caller's, or the server's own word where that sets none."""
        return self._default_deadline_s if time_left_s is None else time_left_s

    def refuse(
        self,
        error: Exception,
        reply: Reply,
        model: ServedModel | ServedPair | None,
        arrived_s: float,
        request_bytes: int,
    ) -> None:
        """Answer a request that never reached a queue, and lay it to its model's account."""
        refusal = status_of(error)
        reply.finish(refusal.code, refusal.details, trailers=refusal.trailers)
        numbers = self._metrics.unattributed if model is None else model.metrics
        if isinstance(error, ModelNotReady) and error.model is not None:
            numbers = self._metrics.model(*error.model)
        numbers.request_failed(
            refusal.code.name, refusal.reason, self.clock() - arrived_s, request_bytes
        )


def successor(
    error: Draining, model: Model, version: str, find: Callable[[str, str], Model]
) -> Model:
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
