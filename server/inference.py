"""From one `ModelInferRequest` to its answer: admission, and the caller the scheduler answers."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from numpy.typing import NDArray

from server import codec, parameters
from server.errors import AnswerTooLarge, Draining, InvalidRequest
from server.metrics import Metrics
from server.model import ServedModel
from server.pb import inference_pb2 as pb
from server.repository import Repository
from server.scheduler import Request
from server.statuses import Refusal, refusal_of

Array = NDArray[Any]


class Reply(Protocol):
    """Where the answer to one request goes: the end of a unary call, or a message on a stream."""

    def answer(self, response: pb.ModelInferResponse) -> bool:
        """Send it; False if nobody waits."""

    def refuse(self, request_id: str, refusal: Refusal) -> None:
        """Send why there is no answer."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A requested output; `classes` is set where its best classes are wanted as text."""

    name: str
    classes: int | None


class Pending:
    """A request on its way through the scheduler; the one who is answered."""

    __slots__ = ("_arrived_s", "_model", "_outputs", "_reply", "_request_id", "is_answered")

    def __init__(
        self,
        reply: Reply,
        model: ServedModel,
        request_id: str,
        outputs: list[_Wanted],
        arrived_s: float,
    ) -> None:
        self._reply = reply
        self._model = model
        self._request_id = request_id
        self._outputs = outputs
        self._arrived_s = arrived_s
        self.is_answered = False

    def answer(self, outputs: Mapping[str, Array]) -> None:
        """Encode and send; a caller who left meanwhile counts as cancelled."""
        model = self._model
        response = codec.encode_response(
            model.name,
            model.version,
            self._request_id,
            [self._output(wanted, outputs[wanted.name]) for wanted in self._outputs],
        )
        self.is_answered = self._reply.answer(response)
        if not self.is_answered:
            self._count(grpc.StatusCode.CANCELLED)

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        refusal = refusal_of(error)
        self._reply.refuse(self._request_id, refusal)
        self._count(refusal.code)

    def _output(self, wanted: _Wanted, array: Array) -> codec.Output:
        if wanted.classes is None:
            datatype = self._model.signature.outputs[wanted.name].datatype
            return codec.Output(wanted.name, datatype, array)
        labels = self._model.labels.get(wanted.name)
        return codec.Output(wanted.name, "BYTES", codec.classify(array, wanted.classes, labels))

    def _count(self, code: grpc.StatusCode) -> None:
        self._model.metrics.request_ended(code.name, time.monotonic() - self._arrived_s)


class Admission:
    """Admits requests to the schedulers of their models.

    Args:
        repository: finds the model.
        metrics: counts what is refused before one is found.
        default_deadline_s: for a caller that sets none.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        repository: Repository,
        metrics: Metrics,
        *,
        default_deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._metrics = metrics
        self._default_deadline_s = default_deadline_s
        self._clock = clock
        self.is_draining = False

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
        arrived_s = self._clock()
        request_id, model = "", None
        try:
            message = codec.parse_request(payload)
            request_id = message.id
            parameters.check_id(request_id)
            model = self._find(message)
            request = self._request(message, model, reply, arrived_s, time_left_s)
            model.scheduler.submit(request)
        except Exception as error:  # noqa: BLE001 - the one place where admission may fail
            refusal = refusal_of(error)
            reply.refuse(request_id, refusal)
            if model is None:
                self._metrics.request_refused(refusal.code.name)
            else:
                model.metrics.request_ended(refusal.code.name, self._clock() - arrived_s)
            return
        scheduler = model.scheduler
        admitted(lambda: scheduler.cancel(request))

    def _find(self, message: pb.ModelInferRequest) -> ServedModel:
        if self.is_draining:
            raise Draining("the server is stopping")
        return self._repository.get(message.model_name, message.model_version)

    def _request(
        self,
        message: pb.ModelInferRequest,
        model: ServedModel,
        reply: Reply,
        arrived_s: float,
        time_left_s: float | None,
    ) -> Request:
        asked = parameters.read_request(message.parameters)
        outputs = _wanted_outputs(message, model)
        arrays = codec.decode_inputs(message, model.signature)
        for tensor in message.inputs:
            if tensor.parameters:
                parameters.check_input(tensor.name, tensor.parameters)
        admission = model.signature.admit({name: array.shape for name, array in arrays.items()})
        left_s = self._default_deadline_s if time_left_s is None else time_left_s
        if asked.timeout_s is not None:
            left_s = min(left_s, asked.timeout_s)
        return Request(
            inputs=arrays,
            rows=admission.rows,
            key=admission.key,
            arrived_s=arrived_s,
            deadline_s=arrived_s + left_s,
            caller=Pending(reply, model, message.id, outputs, arrived_s),
        )


def check_size(message: bytes, most: int) -> None:
    """Refuse an answer that a client would refuse to read."""
    if len(message) > most:
        raise AnswerTooLarge(f"the answer has {len(message)} bytes, the limit is {most}")


def _wanted_outputs(message: pb.ModelInferRequest, model: ServedModel) -> list[_Wanted]:
    signature = model.signature
    if not message.outputs:
        return [_Wanted(name, None) for name in signature.outputs]
    signature.check_outputs([output.name for output in message.outputs])
    wanted = []
    for output in message.outputs:
        classes = parameters.read_classification(output.name, output.parameters)
        spec = signature.outputs[output.name]
        if classes is not None and (spec.datatype in ("BYTES", "BOOL", "BF16") or not spec.axes):
            raise InvalidRequest(f"output {output.name!r}: classification needs axes of numbers")
        wanted.append(_Wanted(output.name, classes))
    return wanted
