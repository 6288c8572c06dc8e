"""Admission control: from a message to a request in its model's queue, or to a refusal.

A small message is parsed and decoded on the transport's thread. A large one, and one of many
elements, waits in a bounded queue for a worker, with its deadline running; if its caller leaves, it
is not parsed at all.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from weir.protocol import inference_pb2 as pb
from weir.server.access.authorization import Caller
from weir.server.errors import Cancelled, Draining, ModelNotReady
from weir.server.protocol import request_decoder
from weir.server.scheduling.request import Model, ReceivedRequest
from weir.server.scheduling.worker_pool import WorkerPool
from weir.server.telemetry.metrics import Metrics
from weir.server.telemetry.request_record import Reply
from weir.server.transport.status import status_of

M = TypeVar("M", bound=Model)


class Admission:
    """Admits requests to the queues of their models.

    Args:
        find_model: the model of a name and a version; see `Repository.get`.
        check_memory: refuses a message of a stream above the watermark. A unary call is refused
            before its message arrives.
    """

    def __init__(
        self,
        find_model: Callable[[str, str], Model],
        metrics: Metrics,
        pool: WorkerPool,
        *,
        default_deadline_s: float,
        max_deadline_s: float = float("inf"),
        check_memory: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find_model = find_model
        self._metrics = metrics
        self._pool = pool
        self._default_deadline_s = default_deadline_s
        self._max_deadline_s = max_deadline_s
        self._check_memory = check_memory
        self.clock = clock
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
        send: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Check a request and queue it; every failure is sent to its caller.

        Args:
            time_left_s: until the deadline of its call; None for the server's default, from now on.
            admitted: called with the function that cancels the request, wherever it waits.
            send: puts a part of the answer on a stream; None for a unary call.
        """
        now = self.clock()
        deadline_s = now + self.left_s(time_left_s)
        received = ReceivedRequest(payload, reply, now, deadline_s, admitted, send, self.clock)
        try:
            if send is not None:
                self._check_memory()
            message = request_decoder.parse_inline(payload)
            if message is None:
                job = _ParseJob(self, received)
                # Before it is queued: once it is parsed, `admitted` is called for its request.
                admitted(partial(self._pool.cancel, job))
                self._pool.submit(job)
                return
        except Exception as error:  # noqa: BLE001 - any failure is sent to the caller
            self.refuse(error, reply, None, now, len(payload))
            return
        self.queue(message, received)

    def queue(self, message: pb.ModelInferRequest, received: ReceivedRequest) -> None:
        """Decode a message and queue it for its model; every failure is sent to its caller."""
        model = None
        try:
            request_decoder.check_id(message.id)
            if (record := received.reply.record) is not None:
                record.parsed(message.model_name, message.model_version, message.id)
            caller = received.reply.caller
            model = self.find(message.model_name, message.model_version, caller)
            while True:
                try:
                    request = model.request(message, received)
                    request.submit()
                    break
                except Draining as error:
                    find = partial(self.find, caller=caller)
                    model = successor(error, model, message.model_version, find)
        except Exception as error:  # noqa: BLE001 - any failure is sent to the caller
            self.refuse(error, received.reply, model, received.arrived_s, len(received.payload))
            return
        received.admitted(request.cancel)

    def find(self, name: str, version: str, caller: Caller | None) -> Model:
        """The model that answers, unless the server is stopping; see `Repository.get`.

        Every request passes here, so its caller's right to the model is checked here.
        """
        if self.is_draining:
            raise Draining("the server is stopping")
        if caller is not None:
            caller.check_model(name)
        return self._find_model(name, version)

    def left_s(self, time_left_s: float | None) -> float:
        """The time that a request has: that of its call within the maximum, or the default."""
        if time_left_s is None:
            return self._default_deadline_s
        return min(time_left_s, self._max_deadline_s)

    def refuse(
        self,
        error: Exception,
        reply: Reply,
        model: Model | None,
        arrived_s: float,
        request_bytes: int,
    ) -> None:
        """Send the failure of a request that reached no queue, and count it for its model."""
        status = status_of(error)
        if isinstance(error, ModelNotReady) and error.model is not None:
            stats = self._metrics.find(*error.model)
        else:
            stats = self._metrics.unattributed if model is None else model.stats
        if stats.model and reply.record is not None:
            reply.record.model, reply.record.version = stats.labels
        reply.finish(status.code, status.details, trailers=status.trailers)
        stats.request_failed(
            status.code.name, status.reason, self.clock() - arrived_s, request_bytes
        )


class _ParseJob:
    """A message that waits to be parsed by a worker; see `worker_pool.Job`."""

    # Parsing takes milliseconds: first come, first served.
    peer = ""

    def __init__(self, admission: Admission, received: ReceivedRequest) -> None:
        self.payload_bytes = len(received.payload)
        self.arrived_s = received.arrived_s
        self.deadline_s = received.deadline_s
        self.is_wanted = True
        self._admission = admission
        self._received = received
        self._message: pb.ModelInferRequest | None = None

    def work(self) -> None:
        """Parse the message."""
        if self._received.reply.cancelled:
            raise Cancelled("the client closed the call")
        self._message = request_decoder.parse_request(self._received.payload)

    def proceed(self) -> None:
        """Decode the message and queue it for its model."""
        if self._message is not None:
            self._admission.queue(self._message, self._received)

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        received = self._received
        self._admission.refuse(error, received.reply, None, received.arrived_s, self.payload_bytes)


def successor(error: Draining, model: M, version: str, find: Callable[[str, str], M]) -> M:
    """The model that replaced another one, which was unloaded after it was found.

    Raises:
        RequestError: no model replaced it.
    """
    found = find(model.name, version)
    if found is model:
        raise error
    return found
