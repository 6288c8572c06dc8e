"""From one `ModelInferRequest` to its answer: admission, and the caller the scheduler answers."""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

import grpc
from numpy.typing import NDArray

from server import codec, parameters, response
from server.errors import Draining, InvalidRequest
from server.metrics import Metrics
from server.model import ServedModel, WantedOutput
from server.pb import inference_pb2 as pb
from server.repository import Repository
from server.statuses import refusal_of
from server.transport.call import Metadata

Array = NDArray[Any]


class Reply(Protocol):
    """Where the answer to one request goes: a unary call, or one request's place on a stream."""

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
    """A request on its way through the scheduler; see `scheduler.Request`."""

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
        reply: Reply,
        *,
        arrived_s: float,
        left_s: float,
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
        self.arrived_s = arrived_s
        self.deadline_s = arrived_s + (left_s if timeout_s is None else min(left_s, timeout_s))
        self.is_answered = False
        self._clock = clock
        self._model = model
        self._outputs = _wanted(message, model) if message.outputs else model.all_outputs
        self._reply = reply
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
        left_s = self._default_deadline_s if time_left_s is None else time_left_s
        model = None
        try:
            message = codec.parse_request(payload)
            parameters.check_id(message.id)
            model = self._find(message)
            request = InferRequest(
                message, model, reply, arrived_s=arrived_s, left_s=left_s, clock=self._clock
            )
            model.scheduler.submit(request)
        except Exception as error:  # noqa: BLE001 - the one place where admission may fail
            refusal = refusal_of(error)
            reply.finish(refusal.code, refusal.details, trailers=refusal.trailers)
            if model is None:
                self._metrics.request_refused(refusal.code.name)
            else:
                model.metrics.request_ended(refusal.code.name, self._clock() - arrived_s)
            return
        admitted(request.cancel)

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
