"""From a call to its place in a model's queue: admission, and what a `ModelInfer` asks for."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from server import codec, parameters, response
from server.errors import Cancelled, DeadlinePassed, Draining, InvalidRequest, Overloaded
from server.generation.request import read_request
from server.generation.served import ServedPair
from server.metrics import Metrics
from server.model import ServedModel, WantedOutput
from server.pb import inference_pb2 as pb
from server.pending import InferRequest, Reply
from server.repository import Repository
from server.statuses import refusal_of
from server.unpacking import SMALL_BYTES, Unpacker

Array = NDArray[Any]


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
            self.refuse(error, reply, None, now)

    def _unpack(self, arrival: Arrival) -> None:
        model = None
        try:
            self._check_wanted(arrival)
            message = codec.parse_request(arrival.payload)
            parameters.check_id(message.id)
            model = self.find(message.model_name, message.model_version)
            while True:
                try:
                    cancel = self._submit(message, model, arrival)
                    break
                except Draining as error:
                    model = self.successor(error, model, message.model_version)
        except Exception as error:  # noqa: BLE001 - the one place where admission may fail
            self.refuse(error, arrival.reply, model, arrival.arrived_s)
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
                clock=self.clock,
            )
            generated.submit()
            return generated.cancel
        request = _request(message, model, arrival, self.clock)
        request.submit()
        return request.cancel

    def _check_wanted(self, arrival: Arrival) -> None:
        """A large message may have waited longer than its caller."""
        if arrival.reply.cancelled:
            raise Cancelled("the caller hung up")
        if len(arrival.payload) > SMALL_BYTES and arrival.deadline_s <= self.clock():
            raise DeadlinePassed("the deadline passed before the message was unpacked")

    def find(self, name: str, version: str) -> ServedModel | ServedPair:
        """The model that answers, unless the server is stopping; see `Repository.get`."""
        if self.is_draining:
            raise Draining("the server is stopping")
        return self._repository.get(name, version)

    def successor(
        self, error: Draining, model: ServedModel | ServedPair, version: str
    ) -> ServedModel | ServedPair:
        """What took the place of a model that was unloaded after it was found.

        Args:
            error: of its closed queue.
            model: that was found.
            version: that was asked for.

        Raises:
            RequestError: nothing did.
        """
        found = self.find(model.name, version)
        if found is model:
            raise error
        return found

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
    ) -> None:
        """Answer a request that never reached a queue, and lay it to its model's account."""
        refusal = refusal_of(error)
        reply.finish(refusal.code, refusal.details, trailers=refusal.trailers)
        if model is None:
            self._metrics.request_refused(refusal.code.name)
        else:
            model.metrics.request_ended(refusal.code.name, self.clock() - arrived_s)


def _request(
    message: pb.ModelInferRequest,
    model: ServedModel,
    arrival: Arrival,
    clock: Callable[[], float],
) -> InferRequest:
    """The request of a message, once everything about it but its values was held against the model."""
    timeout_s = parameters.read_timeout_s(message.parameters)
    for tensor in message.inputs:
        if tensor.parameters:
            parameters.check_input(tensor.name, tensor.parameters)
    forms = codec.forms(message)
    fit = model.signature.admit(forms)
    inputs = codec.decode_inputs(message, forms)
    model.rules.complete(inputs)
    model.rules.check(inputs)
    if model.settings.non_finite == "reject":
        codec.check_finite(inputs, forms)
    deadline_s = arrival.deadline_s
    if timeout_s is not None:
        deadline_s = min(deadline_s, arrival.arrived_s + timeout_s)
    outputs = _wanted(message, model) if message.outputs else model.all_outputs
    return InferRequest(
        model,
        arrival.reply,
        inputs=inputs,
        fit=fit,
        encode=partial(_encode, model, message.id, outputs),
        arrived_s=arrival.arrived_s,
        queued_s=arrival.arrived_s,
        deadline_s=deadline_s,
        clock=clock,
    )


def _wanted(message: pb.ModelInferRequest, model: ServedModel) -> list[WantedOutput]:
    signature = model.signature
    signature.check_outputs([output.name for output in message.outputs])
    wanted = []
    for output in message.outputs:
        classes = parameters.read_classification(output.name, output.parameters)
        spec = signature.outputs[output.name]
        if classes is not None and (spec.datatype in ("BYTES", "BOOL", "BF16") or not spec.axes):
            raise InvalidRequest(f"output {output.name!r}: classification needs axes of numbers")
        wanted.append(WantedOutput(output.name, spec.datatype, classes))
    return wanted


def _encode(
    model: ServedModel,
    request_id: str,
    wanted: Sequence[WantedOutput],
    outputs: Mapping[str, Array],
) -> bytes:
    return model.encoder.encode(
        request_id, [_output(model, each, outputs[each.name]) for each in wanted]
    )


def _output(model: ServedModel, wanted: WantedOutput, array: Array) -> response.Output:
    if wanted.classes is None:
        return response.Output(wanted.name, wanted.datatype, array)
    labels = model.labels.get(wanted.name)
    return response.Output(wanted.name, "BYTES", response.classify(array, wanted.classes, labels))
