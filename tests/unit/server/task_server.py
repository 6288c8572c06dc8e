"""The task calls over a loaded repository, without a network."""

from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from tests.unit.server.conftest import Backend, Clock, FakeCall, parse_pool
from weir.server.scheduling.admission import Admission
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.worker_pool import WorkerPool
from weir.server.services.tasks import SERVICE, TasksService
from weir.server.transport.base import Unary

Answer = TypeVar("Answer", bound=Message)


class TaskServer:
    """One of the calls, and the metrics that it leaves.

    Args:
        backend: the models.
        clock: of every time.
        method: the call's name.
        model: whose numbers are looked at.
    """

    def __init__(self, backend: Backend, clock: Clock, method: str, model: str) -> None:
        self.backend = backend
        self.model = model
        self.admission = Admission(
            backend.repository.get,
            backend.metrics,
            parse_pool(clock),
            default_deadline_s=60.0,
            clock=clock,
        )
        self.pool = WorkerPool(1, deadlines=Deadlines(clock), clock=clock)
        self.pool.start()
        handlers = TasksService(self.admission, self.pool).handlers()
        self.handler = handlers[f"/{SERVICE}/{method}"]

    def send(self, message: Message | bytes, call: FakeCall | None = None) -> FakeCall:
        call = call or FakeCall()
        assert isinstance(self.handler, Unary)
        payload = message if isinstance(message, bytes) else message.SerializeToString()
        self.handler.handle(call, payload)
        return call

    def ask(self, message: Message, kind: type[Answer]) -> Answer:
        call = self.send(message)
        assert call.wait_until_finished() is grpc.StatusCode.OK, call.details
        assert call.message is not None
        return kind.FromString(call.message)

    def refuse(self, message: Message | bytes) -> tuple[grpc.StatusCode, str]:
        call = self.send(message)
        return call.wait_until_finished(), call.details

    def count(self, status: str, model: str | None = None) -> float:
        model = self.model if model is None else model
        labels = {"model": model, "version": "1" if model else "", "status": status}
        return self.sample("weir_requests_total", labels)

    def sample(self, name: str, labels: dict[str, Any] | None = None) -> float:
        labels = labels or {"model": self.model, "version": "1"}
        return self.backend.registry.get_sample_value(name, labels) or 0
