"""The record of one request for the access log and for traces, with the trace context of its call.

A request has a record only if the interceptor selected it; otherwise its record is None. Times are
monotonic seconds of the server's clock; `began_ns` is the wall-clock time of `began_s`. Each part
of the server sets the fields that it knows. The exporter reads the record after the request's end.
"""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from weir.bundle.escaping import printable
from weir.server.transport.base import Metadata

_MAX_CHARACTERS = 256
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace_id>[0-9a-f]{32})"
    r"-(?!0{16})(?P<span_id>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span's identity in the W3C trace context: https://www.w3.org/TR/trace-context/.

    Attributes:
        is_sampled: whether the caller records the span.
    """

    trace_id: str
    span_id: str
    is_sampled: bool


def read_context(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    """The caller's span; None without exactly one well-formed `traceparent`."""
    values = [value for key, value in metadata if key == "traceparent"]
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    found = _TRACEPARENT.fullmatch(values[0])
    # Later versions of the format may add fields; version 00 has none.
    if found is None or (found["version"] == "00" and found["more"]):
        return None
    is_sampled = bool(int(found["flags"], 16) & _SAMPLED)
    return TraceContext(found["trace_id"], found["span_id"], is_sampled)


def _batch_key() -> str:
    return f"{random.getrandbits(64):016x}"


@dataclass(slots=True, eq=False)
class BatchRecord:
    """The times of a batch; the records of its requests share this object.

    Attributes:
        run_s: when the graph started; None before that.
        ran_s: when the graph finished; None before that.
    """

    rows: int
    cut_s: float
    run_s: float | None = None
    ran_s: float | None = None
    key: str = field(default_factory=_batch_key)


@dataclass(slots=True, eq=False)
class RequestRecord:
    """The record of one request.

    Attributes:
        method: the full name, `/package.Service/Method`.
        response_bytes: size of all messages that answer it.
        token: the name of the caller's token in the tokens file.
        model: the requested name, then the name of the model that was found; same for `version`.
        rows: 0 until the request is checked against the model.
        length: tokens of the longest row; 0 for a model without lengths.
        arrived_s: start of the request's latency in the metrics.
        queued_s: start of its time in the queue.
        first_token_s: end of the decoder's first step.
        steps: decoder steps of its longest answer.
    """

    method: str
    peer: str
    parent: TraceContext | None
    is_logged: bool
    is_traced: bool
    began_ns: int
    began_s: float
    request_bytes: int = 0
    response_bytes: int = 0
    request_id: str = ""
    token: str = ""
    model: str = ""
    version: str = ""
    rows: int = 0
    length: int = 0
    arrived_s: float = 0.0
    queued_s: float | None = None
    batch: BatchRecord | None = None
    first_token_s: float | None = None
    steps: int | None = None
    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    ended_s: float = 0.0

    def parsed(self, model: str, version: str, request_id: str = "") -> None:
        """Set the fields of the parsed message; its texts are untrusted."""
        self.model, self.version, self.request_id = map(_escape, (model, version, request_id))

    def queued(
        self, model: str, version: str, *, rows: int, length: int, arrived_s: float, queued_s: float
    ) -> None:
        """Set what is known once the request has passed the model's checks."""
        self.model, self.version = model, version
        self.rows, self.length = rows, length
        self.arrived_s, self.queued_s = arrived_s, queued_s


class Reply(Protocol):
    """The way back to the client: a unary call, or one request's place on a stream."""

    @property
    def record(self) -> RequestRecord | None:
        """The record of the request, or None."""

    @property
    def caller(self) -> Any:
        """The caller of the call that carries the request; see `authorization.Caller`."""

    @property
    def cancelled(self) -> bool:
        """Whether the client no longer waits."""

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """Send a `ModelInferResponse`, or a status; False if the client no longer waits."""


def _escape(text: str) -> str:
    return printable(text[:_MAX_CHARACTERS])
