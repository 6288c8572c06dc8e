"""The task calls: `weir.v1.Tasks`, answered by the threads that run their batches."""

from functools import partial

from weir.protocol.weir.v1 import tasks_pb2 as pb
from weir.server.scheduling.admission import Admission
from weir.server.scheduling.silence import Silence
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


class Tasks:
    """Answers the calls of `weir.v1.Tasks`.

    Args:
        admission: the way to the models' schedulers.
        decoding: where pictures and texts become rows.
        silence: ends streams that send no message.
    """

    def __init__(self, admission: Admission, decoding: WorkerPool, silence: Silence) -> None:
        self._admission = admission
        self._decoding = decoding
        self._silence = silence

    def handlers(self) -> Handlers:
        """By full method name."""
        return {
            **{
                f"/{SERVICE}/{name}": Unary(partial(self._start, task))
                for name, task in _CALLS.items()
            },
            f"/{SERVICE}/Generate": Stream(self._generate, kind="server_stream"),
        }

    def _start(self, task: TaskCall, call: Call, payload: bytes) -> None:
        start(task, call, payload, self._admission, self._decoding)

    def _generate(self, call: Call) -> None:
        generate(call, self._admission, self._decoding, self._silence)
