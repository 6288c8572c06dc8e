"""Requests: as received, as queued for a model, and what a model offers to answer them.

A request has two carriers. `ReceivedRequest` holds the bytes, where the answer goes, and the times.
`Request` holds the decoded inputs in a model's queue: tensors (`InferRequest`), or the rows of an
encoder-decoder (`generation.request`).
"""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import grpc
from numpy.typing import NDArray

from weir.bundle.contract import Contract
from weir.protocol import inference_pb2 as pb
from weir.protocol import model_config_pb2 as config_pb
from weir.server.config import ModelSettings
from weir.server.errors import Cancelled
from weir.server.runtime.signature import Fit, Signature
from weir.server.scheduling.batching import BatchDecision, BatchPolicy
from weir.server.scheduling.byte_budget import ByteBudget
from weir.server.scheduling.deadlines import Expiring
from weir.server.telemetry.model_stats import ModelStats
from weir.server.telemetry.request_record import Reply
from weir.server.transport.base import Metadata
from weir.server.transport.status import REASON_OF, status_of

logger = logging.getLogger(__name__)

Array = NDArray[Any]
T = TypeVar("T")

# A smaller request takes more memory by its call than by its bytes, and calls are bounded; counting
# it costs a microsecond, 4 % of all that a request of LeNet-5 costs in Python.
_MIN_COUNTED_BYTES = 8 * 1024


@dataclass(slots=True, eq=False)
class ReceivedRequest:
    """A request as received, before it is decoded.

    Attributes:
        arrived_s: on the admission's clock.
        deadline_s: the request is not run after this time.
        admitted: called with the function that cancels the queued request.
        send: puts a part of the answer on a stream; None for a unary call.
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
    """How much a model's queue holds at this moment.

    Attributes:
        expected_s: until the answer of a row that arrives now; None before the first run.
    """

    waiting_requests: int
    waiting_rows: int
    running_requests: int
    expected_s: float | None = field(default=None, compare=False)


class ModelQueue(Expiring, Protocol):
    """Queue and threads of a model, as the model repository starts and drains them."""

    decision: BatchDecision
    budget: ByteBudget

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
    def threads(self) -> int:
        """Threads within one operator."""

    @property
    def instances(self) -> int:
        """Batches that run at the same time."""

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
    def labels(self) -> Mapping[str, Sequence[str]]:
        """The labels of outputs with labels, one a class."""

    @property
    def label_files(self) -> Mapping[str, str]:
        """The file of each output's labels, as the model's configuration names it."""

    @property
    def stated_config(self) -> config_pb.ModelConfig | None:
        """What the model's `config.pbtxt` states; None without one."""

    @property
    def is_decoupled(self) -> bool:
        """Whether one request may get several answers."""

    def request(self, message: pb.ModelInferRequest, received: ReceivedRequest) -> ReadyRequest:
        """Decode and check a message; the request is not queued yet.

        Raises:
            InvalidRequest: the message does not fit the model.
        """


class RequestSink(Protocol[T]):
    """The queue of a model, as its requests use it.

    Attributes:
        budget: of the bytes of its requests in flight.
    """

    budget: ByteBudget

    def submit(self, request: "Request[T]") -> None:
        """Queue a request; see `ReadyRequest.submit`."""

    def cancel(self, request: "Request[T]") -> None:
        """Free a request's place."""


class Request(Generic[T]):
    """A request in the queue of its model. It gets exactly one of `answer` and `fail`.

    Args:
        inputs: arrays (rows, …) by name, or the rows of an encoder-decoder.
        fit: what the model's signature says of them.
        encode: writes the answer from the model's outputs.
        queued_s: since when it waits for the model alone.
        deadline_s: never run after this time.
        close: called before the answer or the failure is sent; returns the bytes that were sent
            before.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_close",
        "_encode",
        "_queue",
        "_reply",
        "_stats",
        "arrived_s",
        "deadline_s",
        "held_bytes",
        "inputs",
        "is_answered",
        "key",
        "length",
        "queued_s",
        "record",
        "request_bytes",
        "response_bytes",
        "rows",
        "tensor_bytes",
        "work",
    )

    def __init__(
        self,
        queue: RequestSink[T],
        stats: ModelStats,
        reply: Reply,
        *,
        inputs: T,
        fit: Fit,
        encode: Callable[[T], bytes],
        arrived_s: float,
        queued_s: float,
        deadline_s: float,
        request_bytes: int,
        clock: Callable[[], float],
        close: Callable[[], int] | None = None,
    ) -> None:
        self.inputs = inputs
        self.rows = fit.rows
        self.tensor_bytes = fit.tensor_bytes
        self.key: Hashable = fit.key
        self.length = fit.length
        # As `deadline_order.Timed` counts it.
        self.work = fit.rows * (fit.length or 1)
        self.arrived_s = arrived_s
        self.queued_s = queued_s
        self.deadline_s = deadline_s
        self.is_answered = False
        self.request_bytes = request_bytes
        self.response_bytes = 0
        # Of the budget, from `submit` to the end; 0 if it does not count.
        self.held_bytes = 0
        self._clock = clock
        self._close = close
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
        """Queue the request for its model; see `ReadyRequest.submit`."""
        needed_bytes = self.request_bytes + self.tensor_bytes
        if needed_bytes >= _MIN_COUNTED_BYTES:
            self._queue.budget.take(needed_bytes)
            self.held_bytes = needed_bytes
        try:
            self._queue.submit(self)
        except Exception:
            self._give_back()
            raise

    def cancel(self) -> None:
        """Free the request's place, as the caller is gone."""
        self._queue.cancel(self)

    def answer(self, outputs: T) -> None:
        """Encode and send the answer; a caller that left counts as cancelled."""
        message = self._encode(outputs)
        self.is_answered = self._end(grpc.StatusCode.OK, message=message)
        if self.is_answered:
            self.response_bytes += len(message)
        else:
            self._count_failure(grpc.StatusCode.CANCELLED.name, REASON_OF[Cancelled])

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        status = status_of(error)
        self._end(status.code, status.details, trailers=status.trailers)
        self._count_failure(status.code.name, status.reason)

    def _end(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """End the call and drop it: until it is freed, it counts as open on its connection."""
        self._give_back()
        if self._close is not None:
            self.response_bytes = self._close()
        is_sent = self._reply.finish(code, details, message=message, trailers=trailers)
        self._reply, self._encode, self._close = _CLOSED_REPLY, _encode_nothing, None
        return is_sent

    def _give_back(self) -> None:
        if self.held_bytes:
            self._queue.budget.give_back(self.held_bytes)
            self.held_bytes = 0

    def _count_failure(self, status: str, reason: str) -> None:
        seconds = self._clock() - self.arrived_s
        self._stats.request_failed(status, reason, seconds, self.request_bytes, self.response_bytes)


InferRequest = Request[Mapping[str, Array]]
"""A request of a single graph."""


class _ClosedReply:
    """The reply of a request that is answered: it holds no call."""

    record = None
    caller = None
    cancelled = True

    def finish(self, *_: object, **__: object) -> bool:
        """Send nothing."""
        return False


_CLOSED_REPLY: Reply = _ClosedReply()


def _encode_nothing(_outputs: object) -> bytes:
    """Encodes the answer of a request that has ended."""
    return b""


def refuse(request: Refusable, error: Exception) -> None:
    """Fail a request; an error in doing so is logged and leaves other requests alone."""
    try:
        request.fail(error)
    except Exception:
        logger.exception("request failure not sent")
