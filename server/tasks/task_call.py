"""A task call from its message to its model's queue: what all of them have in common.

The model is found, and refused, before anything waits. Then the message is made into rows on a thread of
`decoding`, and they take the same way through the scheduler as those of a `ModelInfer`.

Should the model be unloaded meanwhile, the message is made into rows anew, for the one that took its place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

from numpy.typing import NDArray

from weir.protocol import tasks_pb2 as pb
from weir.server.errors import Draining, InvalidRequest
from weir.server.protocol import message_limits
from weir.server.scheduling.admission import Admission, M, successor
from weir.server.scheduling.request import InferRequest, ReadyRequest
from weir.server.scheduling.served_model import ServedModel
from weir.server.scheduling.worker_pool import WorkerPool
from weir.server.transport.base import Call

Array = NDArray[Any]

# Of every task call alike.
NAME, VERSION = pb.TagRequest.MODEL_NAME_FIELD_NUMBER, pb.TagRequest.MODEL_VERSION_FIELD_NUMBER
ID = pb.TagRequest.ID_FIELD_NUMBER


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
class Material(Generic[M]):
    """What a message is prepared with.

    Attributes:
        payload: the message.
        model: that it names.
        is_wanted: whether somebody still waits.
        clock: monotonic seconds.
    """

    payload: bytes
    model: M
    is_wanted: Callable[[], bool]
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A task call that came.

    Attributes:
        call: to be answered.
        version: of the model, as it was asked for.
        arrived_s: when.
        deadline_s: when its time is over.
    """

    call: Call
    version: str
    arrived_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class TaskCall:
    """One of the calls.

    Attributes:
        check: raises InvalidRequest for a model that does not do it; on the transport's thread.
        prepare: makes rows of a message; on a thread of the pool.
    """

    check: Callable[[ServedModel], None]
    prepare: Callable[[Material[ServedModel]], Prepared]


def start(
    task: TaskCall, call: Call, payload: bytes, admission: Admission, decoding: WorkerPool
) -> None:
    """Check a message as far as that is cheap, and queue it to be prepared.

    Runs on the transport's thread: nothing here looks into a picture or a text.
    """
    begin(
        call,
        payload,
        admission,
        decoding,
        find=admission.find_graph,
        check=task.check,
        make=partial(_request, task),
    )


def begin(
    call: Call,
    payload: bytes,
    admission: Admission,
    decoding: WorkerPool,
    *,
    find: Callable[[str, str], M],
    check: Callable[[M], None],
    make: Callable[[Arrived, Material[M]], ReadyRequest],
) -> None:
    """Queue a message to be made into a request.

    Args:
        call: to be answered.
        payload: its message.
        admission: gives it its time, and counts it if it fails.
        decoding: whose threads make the request.
        find: the model of a name and a version.
        check: raises InvalidRequest for a model that does not do it.
        make: the request of a message.
    """
    arrived_s = admission.clock()
    model = None
    try:
        name, version, request_id = message_limits.read_texts(payload, NAME, VERSION, ID)
        if call.record is not None:
            call.record.parsed(name, version, request_id)
        model = find(name, version)
        check(model)
        deadline_s = arrived_s + admission.left_s(call.time_left_s())
        arrived = Arrived(call, version, arrived_s, deadline_s)
        job = Job(arrived, payload, model, admission, find=find, check=check, make=make)
        # Before it is queued: a job that is done at once asks for the same word on its request.
        call.on_close(partial(decoding.cancel, job))
        decoding.submit(job)
    except Exception as error:  # noqa: BLE001 - the one place where admission may fail
        admission.refuse(error, call, model, arrived_s, len(payload))


def check_rows(what: str, count: int, model: ServedModel) -> None:
    """Refuse a request of no rows, or of more than fit into a batch."""
    most = model.signature.max_rows
    if not count:
        raise InvalidRequest(f"{what}: expected 1 or more, got 0")
    if count > most:
        raise InvalidRequest(f"{what}: expected at most {most} in a request, got {count}")


class Job(Generic[M]):
    """A request until its rows are there; see `begin` and `decoding.Job`."""

    def __init__(
        self,
        arrived: Arrived,
        payload: bytes,
        model: M,
        admission: Admission,
        *,
        find: Callable[[str, str], M],
        check: Callable[[M], None],
        make: Callable[[Arrived, Material[M]], ReadyRequest],
    ) -> None:
        self.payload_bytes = len(payload)
        self.arrived_s = arrived.arrived_s
        self.deadline_s = arrived.deadline_s
        self.is_wanted = True
        self._arrived = arrived
        self._admission = admission
        self._model = model
        self._payload = payload
        self._find, self._check, self._make = find, check, make
        self._request: ReadyRequest | None = None

    def work(self) -> None:
        """Make a request of the message."""
        self._request = self._made(lambda: self.is_wanted)

    def proceed(self) -> None:
        """Queue the request for the model."""
        call, request, self._request = self._arrived.call, self._request, None
        while request is not None:
            try:
                request.submit()
                break
            except Draining as error:
                self._model = successor(error, self._model, self._arrived.version, self._find)
                self._check(self._model)
                request = self._made(lambda: not call.cancelled)
        # The call remembers the job for as long as it is open.
        self._payload = b""
        if request is not None:
            call.on_close(request.cancel)

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        call = self._arrived.call
        self._admission.refuse(error, call, self._model, self.arrived_s, self.payload_bytes)

    def _made(self, is_wanted: Callable[[], bool]) -> ReadyRequest:
        clock = self._admission.clock
        return self._make(self._arrived, Material(self._payload, self._model, is_wanted, clock))


def _request(task: TaskCall, arrived: Arrived, material: Material[ServedModel]) -> InferRequest:
    prepared, model = task.prepare(material), material.model
    fit = model.signature.admit(
        tuple((name, prepared.datatype, array.shape) for name, array in prepared.inputs.items())
    )
    return InferRequest(
        model.scheduler,
        model.metrics,
        arrived.call,
        inputs=prepared.inputs,
        fit=fit,
        encode=prepared.encode,
        arrived_s=arrived.arrived_s,
        queued_s=material.clock(),
        deadline_s=arrived.deadline_s,
        request_bytes=len(material.payload),
        clock=material.clock,
    )
