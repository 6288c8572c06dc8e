"""From one `ModelInferRequest` to its answer: admission, and the caller the scheduler answers."""

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from numpy.typing import NDArray

from server import codec, parameters, response
from server.errors import Cancelled, DeadlinePassed, Draining, InvalidRequest, Overloaded
from server.metrics import Metrics
from server.model import ServedModel, WantedOutput
from server.pb import inference_pb2 as pb
from server.repository import Repository
from server.statuses import refusal_of
from server.transport.call import Metadata
from server.unpacking import SMALL_BYTES, Unpacker

Array = NDArray[Any]


class Reply(Protocol):
    """Where the answer to one request goes: a unary call, or one request's place on a stream."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any longer."""

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """Send a `ModelInferResponse`, or a status; False if nobody waits."""


class InferRequest:
    """A request on its way through the scheduler; see `request.Request`."""

    __slots__ = (
        "_clock",
        "_model",
        "_outputs",
        "_reply",
        "_request_id",
        "arrived_s",
        "deadline_s",
        "inputs",
        "is_answered",
        "key",
        "rows",
    )

    def __init__(
        self,
        message: pb.ModelInferRequest,
        model: ServedModel,
        arrival: "Arrival",
        *,
        clock: Callable[[], float],
    ) -> None:
        timeout_s = parameters.read_timeout_s(message.parameters)
        for tensor in message.inputs:
            if tensor.parameters:
                parameters.check_input(tensor.name, tensor.parameters)
        forms = codec.forms(message)
        admission = model.signature.admit(forms)
        self.rows = admission.rows
        self.key: Hashable = admission.key
        self.inputs: Mapping[str, Array] = codec.decode_inputs(message, forms)
        if model.settings.non_finite == "reject":
            codec.check_finite(self.inputs, forms)
        self.arrived_s = arrival.arrived_s
        self.deadline_s = arrival.deadline_s
        if timeout_s is not None:
            self.deadline_s = min(arrival.deadline_s, arrival.arrived_s + timeout_s)
        self.is_answered = False
        self._clock = clock
        self._model = model
        self._outputs = _wanted(message, model) if message.outputs else model.all_outputs
        self._reply = arrival.reply
        self._request_id = message.id

    def answer(self, outputs: Mapping[str, Array]) -> None:
        """Encode and send; a caller who left meanwhile counts as cancelled."""
        message = self._model.encoder.encode(
            self._request_id,
            [self._output(wanted, outputs[wanted.name]) for wanted in self._outputs],
        )
        self.is_answered = self._reply.finish(grpc.StatusCode.OK, message=message)
        if not self.is_answered:
            self._count(grpc.StatusCode.CANCELLED)

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        refusal = refusal_of(error)
        self._reply.finish(refusal.code, refusal.details, trailers=refusal.trailers)
        self._count(refusal.code)

    def cancel(self) -> None:
        """The caller is gone."""
        self._model.scheduler.cancel(self)

    def _output(self, wanted: WantedOutput, array: Array) -> response.Output:
        if wanted.classes is None:
            return response.Output(wanted.name, wanted.datatype, array)
        labels = self._model.labels.get(wanted.name)
        return response.Output(
            wanted.name, "BYTES", response.classify(array, wanted.classes, labels)
        )

    def _count(self, code: grpc.StatusCode) -> None:
        self._model.metrics.request_ended(code.name, self._clock() - self.arrived_s)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it arrived.

    Attributes:
        payload: a `ModelInferRequest`.
        reply: where its answer goes.
        arrived_s: on the admission's clock.
        deadline_s: after which nobody wants it.
        admitted: called with what frees the request's place when its caller leaves.
    """

    payload: bytes
    reply: Reply
    arrived_s: float
    deadline_s: float
    admitted: Callable[[Callable[[], None]], None]


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
        self._clock = clock
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
    ) -> None:
        """Check a request and queue it; every failure is sent to its caller.

        Args:
            payload: a `ModelInferRequest`.
            reply: where the answer goes.
            time_left_s: until the caller's own deadline, or None.
            admitted: called with what frees the request's place when its caller leaves.
        """
        now = self._clock()
        left_s = self._default_deadline_s if time_left_s is None else time_left_s
        arrival = Arrival(payload, reply, now, now + left_s, admitted)
        try:
            self._unpacker.accept(arrival)
        except Overloaded as error:
            self._refuse(arrival, error, None)

    def _unpack(self, arrival: Arrival) -> None:
        model = None
        try:
            self._check_wanted(arrival)
            message = codec.parse_request(arrival.payload)
            parameters.check_id(message.id)
            model = self._find(message)
            request = InferRequest(message, model, arrival, clock=self._clock)
            model.scheduler.submit(request)
        except Exception as error:  # noqa: BLE001 - the one place where admission may fail
            self._refuse(arrival, error, model)
            return
        arrival.admitted(request.cancel)

    def _check_wanted(self, arrival: Arrival) -> None:
        """A large message may have waited longer than its caller."""
        if arrival.reply.cancelled:
            raise Cancelled("the caller hung up")
        if len(arrival.payload) > SMALL_BYTES and arrival.deadline_s <= self._clock():
            raise DeadlinePassed("the deadline passed before the message was unpacked")

    def _refuse(self, arrival: Arrival, error: Exception, model: ServedModel | None) -> None:
        refusal = refusal_of(error)
        arrival.reply.finish(refusal.code, refusal.details, trailers=refusal.trailers)
        if model is None:
            self._metrics.request_refused(refusal.code.name)
        else:
            model.metrics.request_ended(refusal.code.name, self._clock() - arrival.arrived_s)

    def _find(self, message: pb.ModelInferRequest) -> ServedModel:
        if self.is_draining:
            raise Draining("the server is stopping")
        return self._repository.get(message.model_name, message.model_version)


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
