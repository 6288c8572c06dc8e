"""Requests: as received, as queued for a model, and what a model offers to answer them.

A request has two carriers. `ReceivedRequest` holds the bytes, where the answer goes, and the times.
`InferRequest` holds the decoded tensors in a model's queue; an encoder-decoder has a kind of its
own (`generation.request`).
"""

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from numpy.typing import NDArray

from weir.bundle.contract import Contract
from weir.protocol import inference_pb2 as pb
from weir.server.config import ModelSettings
from weir.server.errors import Cancelled
from weir.server.runtime.signature import Fit, Signature
from weir.server.scheduling.batching import BatchPolicy
from weir.server.scheduling.deadlines import Expiring
from weir.server.telemetry.model_stats import ModelStats
from weir.server.telemetry.request_record import Reply
from weir.server.transport.status import REASON_OF, status_of

logger = logging.getLogger(__name__)

Array = NDArray[Any]


@dataclass(slots=True, eq=False)
class ReceivedRequest:
    """A request as received, before it is decoded.

    Attributes:
        payload: a `ModelInferRequest`.
        reply: where its answer goes.
        arrived_s: on the admission's clock.
        deadline_s: the request is not run after this time.
        admitted: called with the function that cancels the queued request.
        send: puts a part of the answer on a stream; None for a unary call.
        clock: of these times.
    """

    payload: bytes
    reply: Reply
    arrived_s: float
    deadline_s: float
    admitted: Callable[[Callable[[], None]], None]
    send: Callable[[bytes], bool] | None
    clock: Callable[[], float]


class Refusable(Protocol):
    """A request that can fail."""

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""


class ReadyRequest(Protocol):
    """A decoded request that can be queued for its model."""

    def submit(self) -> None:
        """Queue the request.

        Raises:
            Overloaded: it does not fit into the queue.
            Draining: the model is being unloaded.
        """

    def cancel(self) -> None:
        """Free the request's place, as the caller is gone."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much a model's queue holds at this moment."""

    waiting_requests: int
    waiting_rows: int
    running_requests: int


class ModelQueue(Expiring, Protocol):
    """Queue and threads of a model, as the model repository starts and drains them.

    Attributes:
        is_batched: whether requests are put together.
    """

    is_batched: bool

    def start(self) -> None:
        """Start the threads."""

    def close(self) -> None:
        """Refuse new requests; the threads end once the waiting ones are answered."""

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads of a closed queue; True if all ended in time."""

    def load(self) -> Load:
        """Waiting and running requests."""


class Model(Protocol):
    """A served version of a model: a single graph, or an encoder-decoder. Immutable."""

    @property
    def name(self) -> str:
        """The name that requests give."""

    @property
    def version(self) -> str:
        """The version's number."""

    @property
    def contract(self) -> Contract | None:
        """The bundle's contract; None for a plain ONNX file."""

    @property
    def settings(self) -> ModelSettings:
        """The operator's settings for the model."""

    @property
    def provider(self) -> str:
        """The execution provider it runs on: `cpu` or `cuda`."""

    @property
    def golden(self) -> float | None:
        """The greatest difference from the recorded outputs at load; None for a plain model."""

    @property
    def scheduler(self) -> ModelQueue:
        """Its queue and threads."""

    @property
    def stats(self) -> ModelStats:
        """Its counters."""

    @property
    def signature(self) -> Signature:
        """Its inputs and outputs."""

    @property
    def policy(self) -> BatchPolicy:
        """When its batches are cut."""

    @property
    def file(self) -> str:
        """The file of its graph, in the version's directory."""

    @property
    def label_files(self) -> Mapping[str, str]:
        """The file of each output's labels, as the model's configuration names it."""

    @property
    def is_decoupled(self) -> bool:
        """Whether one request may get several answers."""

    def request(self, message: pb.ModelInferRequest, received: ReceivedRequest) -> ReadyRequest:
        """Decode and check a message; the request is not queued yet.

        Raises:
            InvalidRequest: the message does not fit the model.
        """


class InferQueue(Protocol):
    """The queue of a single graph; see `scheduler.Scheduler`."""

    def submit(self, request: "InferRequest") -> None:
        """Queue a request."""

    def cancel(self, request: "InferRequest") -> None:
        """Free a request's place."""


class InferRequest:
    """A request in the queue of a single graph. It gets exactly one of `answer` and `fail`.

    Args:
        queue: of its model.
        metrics: of its model.
        reply: where the answer goes.
        inputs: by name; (rows, …) where the model has rows.
        fit: what the model's signature says of them.
        encode: writes the answer from the model's outputs.
        arrived_s: when the call came.
        queued_s: since when it waits for the model alone.
        deadline_s: never run after this time.
        request_bytes: size of the message.
        clock: of these times.
    """

    __slots__ = (
        "_clock",
        "_encode",
        "_queue",
        "_reply",
        "_stats",
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
        queue: InferQueue,
        stats: ModelStats,
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
        self._stats = stats
        self._queue = queue
        self._reply = reply
        self.record = reply.record
        if self.record is not None:
            self.record.queued(
                stats.model,
                stats.version,
                rows=fit.rows,
                length=fit.length,
                arrived_s=arrived_s,
                queued_s=queued_s,
            )

    def submit(self) -> None:
        """Queue the request for its model.

        Raises:
            Overloaded: it does not fit into the queue.
            Draining: the model is being unloaded.
        """
        self._queue.submit(self)

    def cancel(self) -> None:
        """Free the request's place, as the caller is gone."""
        self._queue.cancel(self)

    def answer(self, outputs: Mapping[str, Array]) -> None:
        """Encode and send the request's own rows; a caller that left counts as cancelled."""
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

    def _count(self, status: str, reason: str) -> None:
        seconds = self._clock() - self.arrived_s
        self._stats.request_failed(status, reason, seconds, self.request_bytes)


class _ClosedReply:
    """The reply of a request that is answered: it holds no call."""

    record = None
    cancelled = True

    def finish(self, *_: object, **__: object) -> bool:
        """Send nothing."""
        return False


CLOSED_REPLY: Reply = _ClosedReply()


def refuse(request: Refusable, error: Exception) -> None:
    """Fail a request; an error in doing so is logged and leaves other requests alone."""
    try:
        request.fail(error)
    except Exception:
        logger.exception("request failure not sent")
