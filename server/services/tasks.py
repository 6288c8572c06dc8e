"""`weir.v1.Tasks`: a model's task on pictures, texts or series instead of tensors."""

from functools import partial

from weir.protocol import tasks_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.scheduling.admission import Admission
from weir.server.scheduling.worker_pool import WorkerPool
from weir.server.tasks.forecasting import forecast
from weir.server.tasks.generate import generate
from weir.server.tasks.image_classification import classify
from weir.server.tasks.task_call import Task, start
from weir.server.tasks.text import classify_text, tag
from weir.server.transport.base import Call, Handlers, Stream, Unary
from weir.server.transport.status import fail

SERVICE = pb.DESCRIPTOR.services_by_name["Tasks"].full_name

_TASKS: dict[str, Task] = {
    "Classify": classify,
    "ClassifyText": classify_text,
    "Forecast": forecast,
    "Tag": tag,
}


class TasksService:
    """`Tasks`."""

    def __init__(self, admission: Admission, pool: WorkerPool) -> None:
        self._admission = admission
        self._pool = pool

    def handlers(self) -> Handlers:
        """The service's handlers, by full method name."""
        return {
            **{
                f"/{SERVICE}/{name}": Unary(partial(self._start, task))
                for name, task in _TASKS.items()
            },
            f"/{SERVICE}/Generate": Stream(self._generate, kind="server_stream"),
        }

    def _start(self, task: Task, call: Call, payload: bytes) -> None:
        start(call, payload, task, self._admission, self._pool)

    def _generate(self, call: Call) -> None:
        """Wait for the one message of a `Generate` call."""

        def received(payload: bytes | None) -> None:
            if payload is None:
                fail(call, InvalidRequest("expected one message, got none"))
            else:
                # The time left is read in here: a client may pause between call and message.
                self._start(generate, call, payload)

        call.receive(received)
