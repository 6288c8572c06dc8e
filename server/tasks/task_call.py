"""Task call: one message of `weir.v1.Tasks`, from its bytes to a request in its model's queue.

The model is found, and its task checked, before the call waits for anything. Then a thread of the
worker pool preprocesses the message into a request, which joins those of `ModelInfer` in the same
queue.

If the model is unloaded meanwhile, the message is preprocessed again for the version that replaced
it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from numpy.typing import NDArray

from weir.protocol import tasks_pb2 as pb
from weir.server.errors import Draining, InvalidRequest
from weir.server.protocol import message_limits, response_encoder
from weir.server.protocol.request_decoder import check_id
from weir.server.runtime.signature import forms_of
from weir.server.scheduling.admission import Admission, successor
from weir.server.scheduling.request import InferRequest, Model, ReadyRequest, Request
from weir.server.scheduling.served_model import ServedModel
from weir.server.scheduling.worker_pool import WorkerPool
from weir.server.transport.base import Call

Array = NDArray[Any]

DEFAULT_TOP_K = 5
"""Classes of an answer if the message does not say."""

# Every message of the service has these fields.
_NAME, _VERSION, _ID = (
    pb.TagRequest.MODEL_NAME_FIELD_NUMBER,
    pb.TagRequest.MODEL_VERSION_FIELD_NUMBER,
    pb.TagRequest.ID_FIELD_NUMBER,
)

Preprocess = Callable[["TaskCall"], ReadyRequest]
"""Parses and preprocesses a task call for one model; runs on a thread of the pool."""

Task = Callable[[Model], Preprocess]
"""Resolves a task for a model: how its calls are preprocessed.

It raises InvalidRequest if the model lacks the task.
"""


class TaskCall:
    """A task call until its request is queued; a job of the worker pool.

    Raises:
        InvalidRequest: the model lacks the task.
    """

    def __init__(
        self,
        call: Call,
        payload: bytes,
        task: Task,
        model: Model,
        *,
        version: str,
        admission: Admission,
        arrived_s: float,
        deadline_s: float,
    ) -> None:
        self.call = call
        self.peer = call.peer
        self.payload = payload
        self.payload_bytes = len(payload)
        self.arrived_s = arrived_s
        self.deadline_s = deadline_s
        self.is_wanted = True
        self.clock = admission.clock
        self._is_proceeding = False
        self._version = version
        self._admission = admission
        self._task = task
        self._model = model
        self._preprocess = task(model)
        self._request: ReadyRequest | None = None

    @property
    def is_over(self) -> bool:
        """Whether the call is answered or closed: preprocessing may stop."""
        # The pool drops `is_wanted` too when it hands the call over.
        return self.call.cancelled if self._is_proceeding else not self.is_wanted

    def work(self) -> None:
        """Preprocess the message."""
        self._request = self._preprocess(self)

    def proceed(self) -> None:
        """Queue the request for its model."""
        self._is_proceeding = True
        request, self._request = self._request, None
        while request is not None:
            try:
                request.submit()
                break
            except Draining as error:
                find = partial(self._admission.find, caller=self.call.caller)
                self._model = successor(error, self._model, self._version, find)
                self._preprocess = self._task(self._model)
                request = self._preprocess(self)
        # The call holds this object as long as it is open.
        self.payload = b""
        if request is not None:
            self.call.on_close(request.cancel)

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        self._admission.refuse(error, self.call, self._model, self.arrived_s, self.payload_bytes)


def start(call: Call, payload: bytes, task: Task, admission: Admission, pool: WorkerPool) -> None:
    """Check a task call and queue it for preprocessing; a failure is sent to its client."""
    arrived_s = admission.clock()
    model = None
    try:
        name, version, request_id = message_limits.read_texts(payload, _NAME, _VERSION, _ID)
        if call.record is not None:
            call.record.parsed(name, version, request_id)
        model = admission.find(name, version, call.caller)
        task_call = TaskCall(
            call,
            payload,
            task,
            model,
            version=version,
            admission=admission,
            arrived_s=arrived_s,
            deadline_s=arrived_s + admission.left_s(call.time_left_s()),
        )
        check_id(request_id)
        if isinstance(model, ServedModel):
            model.scheduler.check_time(task_call.deadline_s)
        # Before it is queued: a call that is done at once sets `on_close` to cancel its request.
        call.on_close(partial(pool.cancel, task_call))
        pool.submit(task_call)
    except Exception as error:  # noqa: BLE001 - the one place where a task call may be refused
        admission.refuse(error, call, model, arrived_s, len(payload))


def single_graph(model: Model, task: str | None = None) -> ServedModel:
    """The model, if it is a single graph and its contract names the task."""
    if not isinstance(model, ServedModel):
        raise InvalidRequest(f"model {model.name!r} is an encoder-decoder: use Generate")
    found = model.contract.task if model.contract else "none: it has no contract"
    if task is not None and found != task:
        raise InvalidRequest(f"model {model.name!r}: expected the task {task}, got {found}")
    return model


def check_rows(what: str, count: int, model: ServedModel) -> None:
    """Refuse a request without rows, or with more than fit into a batch."""
    most = model.signature.max_rows
    if not count:
        raise InvalidRequest(f"{what}: expected 1 or more, got 0")
    if count > most:
        raise InvalidRequest(f"{what}: expected at most {most} in a request, got {count}")


def check_classes(model: ServedModel, output: str, rows: int, top_k: int) -> None:
    """Refuse a request for more classes than an answer may hold."""
    classes = model.signature.outputs[output].axes[1]
    each = min(top_k, classes) if isinstance(classes, int) else top_k
    response_encoder.check_classes(rows * each)


def infer_request(
    call: TaskCall,
    model: ServedModel,
    inputs: Mapping[str, Array],
    encode: Callable[[Mapping[str, Array]], bytes],
) -> InferRequest:
    """The request of a preprocessed call.

    Args:
        inputs: by name, all with the same number of rows.
    """
    fit = model.signature.admit(forms_of(inputs))
    return Request(
        model.scheduler,
        model.stats,
        call.call,
        inputs=inputs,
        fit=fit,
        encode=encode,
        arrived_s=call.arrived_s,
        queued_s=call.clock(),
        deadline_s=call.deadline_s,
        request_bytes=call.payload_bytes,
        clock=call.clock,
    )
