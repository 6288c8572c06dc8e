"""A task call from its message to its model's queue: what all of them have in common.

The model is found, and refused, before anything waits. Then the message is made into rows on a thread of
`decoding`, and they take the same way through the scheduler as those of a `ModelInfer`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from server import guard
from server.decoding import DecodePool
from server.errors import InvalidRequest
from server.inference import Admission
from server.model import ServedModel
from server.pb.weir.v1 import tasks_pb2 as pb
from server.pending import InferRequest
from server.transport.call import Call

Array = NDArray[Any]
Parsed = TypeVar("Parsed", bound=Message)

# Of every task call alike, and so is the id, 3.
NAME, VERSION = pb.TagRequest.MODEL_NAME_FIELD_NUMBER, pb.TagRequest.MODEL_VERSION_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows ready for a model.

    Attributes:
        inputs: by name, as many rows in each.
        datatype: of all of them, on the wire.
        encode: writes the answer, of the model's outputs.
    """

    inputs: Mapping[str, Array]
    datatype: str
    encode: Callable[[Mapping[str, Array]], bytes]


@dataclass(frozen=True, slots=True)
class Material:
    """What a message is prepared with.

    Attributes:
        payload: the message.
        model: that it names.
        is_wanted: whether somebody still waits.
        clock: monotonic seconds.
    """

    payload: bytes
    model: ServedModel
    is_wanted: Callable[[], bool]
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class TaskCall:
    """One of the calls.

    Attributes:
        check: raises InvalidRequest for a model that does not do it; on the transport's thread.
        prepare: makes rows of a message; on a thread of the pool.
    """

    check: Callable[[ServedModel], None]
    prepare: Callable[[Material], Prepared]


def start(
    task: TaskCall, call: Call, payload: bytes, admission: Admission, decoding: DecodePool
) -> None:
    """Check a message as far as that is cheap, and queue it to be prepared.

    Runs on the transport's thread: nothing here looks into a picture or a text.
    """
    arrived_s = admission.clock()
    model = None
    try:
        model = admission.find_graph(*guard.read_texts(payload, NAME, VERSION))
        task.check(model)
        job = _Job(task, call, payload, model, admission=admission, arrived_s=arrived_s)
        # Before it is queued: a job that is done at once asks for the same word on its request.
        call.on_close(partial(decoding.cancel, job))
        decoding.submit(job)
    except Exception as error:  # noqa: BLE001 - the one place where admission may fail
        admission.refuse(error, call, model, arrived_s)


def parse(kind: type[Parsed], payload: bytes) -> Parsed:
    """A message of its bytes.

    Raises:
        InvalidRequest: they are none.
    """
    try:
        return kind.FromString(payload)
    except DecodeError:
        raise InvalidRequest(f"the message is no valid {kind.DESCRIPTOR.name}") from None


def check_rows(what: str, count: int, model: ServedModel) -> None:
    """Refuse a request of no rows, or of more than fit into a batch."""
    most = model.signature.max_rows
    if not count:
        raise InvalidRequest(f"{what}: expected 1 or more, got 0")
    if count > most:
        raise InvalidRequest(f"{what}: expected at most {most} in a request, got {count}")


class _Job:
    """A request until its rows are there; see `decoding.Job`."""

    def __init__(
        self,
        task: TaskCall,
        call: Call,
        payload: bytes,
        model: ServedModel,
        *,
        admission: Admission,
        arrived_s: float,
    ) -> None:
        self.payload_bytes = len(payload)
        self.arrived_s = arrived_s
        self.deadline_s = arrived_s + admission.left_s(call.time_left_s())
        self.is_wanted = True
        self._admission = admission
        self._call = call
        self._model = model
        self._payload = payload
        self._request: InferRequest | None = None
        self._task = task

    def work(self) -> None:
        """Make rows of the message."""
        clock, payload, self._payload = self._admission.clock, self._payload, b""
        material = Material(payload, self._model, lambda: self.is_wanted, clock)
        prepared = self._task.prepare(material)
        fit = self._model.signature.admit(
            tuple((name, prepared.datatype, array.shape) for name, array in prepared.inputs.items())
        )
        self._request = InferRequest(
            self._model,
            self._call,
            inputs=prepared.inputs,
            fit=fit,
            encode=prepared.encode,
            arrived_s=self.arrived_s,
            queued_s=clock(),
            deadline_s=self.deadline_s,
            clock=clock,
        )

    def proceed(self) -> None:
        """Queue the rows for the model."""
        if self._request is not None:
            self._model.scheduler.submit(self._request)
            self._call.on_close(self._request.cancel)

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        self._admission.refuse(error, self._call, self._model, self.arrived_s)
