"""A request on its way through the scheduler, and where its answer goes."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

import grpc
from numpy.typing import NDArray

from weir.server.errors import Cancelled
from weir.server.repository.served_model import ServedModel
from weir.server.runtime.signature import Fit
from weir.server.telemetry.request_record import RequestRecord
from weir.server.transport.base import Metadata
from weir.server.transport.status import REASON_OF, status_of

Array = NDArray[Any]


class Reply(Protocol):
    """Where the answer to one request goes: a unary call, or one request's place on a stream."""

    @property
    def record(self) -> RequestRecord | None:
        """What is noted of the request on its way; None: nobody wants to hear of it."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any longer."""

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """Send a `ModelInferResponse`, or a status; False if nobody waits."""


class _Nobody:
    """In the place of a caller who has the answer."""

    record = None
    cancelled = True

    def finish(self, *_: object, **__: object) -> bool:
        """Nobody waits."""
        return False


NOBODY: Reply = _Nobody()


class InferRequest:
    """A request on its way through the scheduler; see `request.Request`.

    Args:
        model: through whose scheduler.
        reply: where the answer goes.
        inputs: what the model is run on.
        fit: what the model's signature says of them.
        encode: writes the answer, of the model's outputs.
        arrived_s: when the call came.
        queued_s: since when only the model is waited for.
        deadline_s: when its time is over.
        request_bytes: of the message.
        clock: of these times.
    """

    __slots__ = (
        "_clock",
        "_encode",
        "_model",
        "_reply",
        "arrived_s",
        "deadline_s",
        "inputs",
        "is_answered",
        "key",
        "length",
        "queued_s",
        "record",
        "request_bytes",
        "response_bytes",
        "rows",
    )

    def __init__(
        self,
        model: ServedModel,
        reply: Reply,
        *,
        inputs: Mapping[str, Array],
        fit: Fit,
        encode: Callable[[Mapping[str, Array]], bytes],
        arrived_s: float,
        queued_s: float,
        deadline_s: float,
        request_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self.inputs = inputs
        self.rows = fit.rows
        self.key: Hashable = fit.key
        self.length = fit.length
        self.arrived_s = arrived_s
        self.queued_s = queued_s
        self.deadline_s = deadline_s
        self.is_answered = False
        self.request_bytes = request_bytes
        self.response_bytes = 0
        self._clock = clock
        self._encode = encode
        self._model = model
        self._reply = reply
        self.record = reply.record
        if self.record is not None:
            self.record.queued(
                model.name,
                model.version,
                rows=fit.rows,
                length=fit.length,
                arrived_s=self.arrived_s,
                queued_s=queued_s,
            )

    def submit(self) -> None:
        """Queue it for its model.

        Raises:
            Overloaded: it does not fit into the queue.
            Draining: the model is being unloaded.
        """
        self._model.scheduler.submit(self)

    def answer(self, outputs: Mapping[str, Array]) -> None:
        """Encode and send; a caller who left meanwhile counts as cancelled."""
        message = self._encode(outputs)
        self.is_answered = self._reply.finish(grpc.StatusCode.OK, message=message)
        if self.is_answered:
            self.response_bytes = len(message)
        else:
            self._count(grpc.StatusCode.CANCELLED.name, REASON_OF[Cancelled])

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        refusal = status_of(error)
        self._reply.finish(refusal.code, refusal.details, trailers=refusal.trailers)
        self._count(refusal.code.name, refusal.reason)

    def cancel(self) -> None:
        """The caller is gone."""
        self._model.scheduler.cancel(self)

    def _count(self, status: str, reason: str) -> None:
        seconds = self._clock() - self.arrived_s
        self._model.metrics.request_failed(status, reason, seconds, self.request_bytes)
