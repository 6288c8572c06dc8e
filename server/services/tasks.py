"""`weir.v1.Tasks`: a model's task on pictures, texts or series instead of tensors."""

from functools import partial

from weir.protocol import tasks_pb2 as pb
from weir.server.scheduling.admission import Admission
from weir.server.scheduling.deadlines import IdleTimeout
from weir.server.scheduling.worker_pool import WorkerPool
from weir.server.tasks.forecasting import FORECAST
from weir.server.tasks.generate import generate
from weir.server.tasks.image_classification import CLASSIFY
from weir.server.tasks.tagging import TAG
from weir.server.tasks.task_call import TaskCall, start
from weir.server.tasks.text_classification import CLASSIFY_TEXT
from weir.server.transport.base import Call, Handlers, Stream, Unary

SERVICE = pb.DESCRIPTOR.services_by_name["Tasks"].full_name

_CALLS = {"Classify": CLASSIFY, "ClassifyText": CLASSIFY_TEXT, "Forecast": FORECAST, "Tag": TAG}


class TasksService:
    """`Tasks`; `idle_timeout` ends streams whose client sends no message."""

    def __init__(self, admission: Admission, pool: WorkerPool, idle_timeout: IdleTimeout) -> None:
        self._admission = admission
        self._pool = pool
        self._idle_timeout = idle_timeout

    def handlers(self) -> Handlers:
        """The service's handlers, by full method name."""
        return {
            **{
                f"/{SERVICE}/{name}": Unary(partial(self._start, task))
                for name, task in _CALLS.items()
            },
            f"/{SERVICE}/Generate": Stream(self._generate, kind="server_stream"),
        }

    def _start(self, task: TaskCall, call: Call, payload: bytes) -> None:
        start(task, call, payload, self._admission, self._pool)

    def _generate(self, call: Call) -> None:
        generate(call, self._admission, self._pool, self._idle_timeout)
