"""What is noted of one request on its way, to be told once it has ended.

A request has a record only if somebody wants to hear of it (`following`). Times are the server's monotonic seconds, `began_ns`
is the wall clock's word on the first of them. Each station notes what it alone knows; whoever ends the call passes the
record on, and nobody reads it before.
"""

import random
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from weir.bundle.wording import printable
from weir.server.telemetry.trace_context import TraceContext
from weir.server.transport.base import Metadata

_MOST_CHARACTERS = 256


def _key() -> str:
    return f"{random.getrandbits(64):016x}"


@dataclass(slots=True, eq=False)
class BatchRecord:
    """A run that several requests may share, and with it this object.

    Attributes:
        rows: of all requests.
        cut_s: when it left the queue.
        run_s: when the graph began; None: not yet.
        ran_s: when the graph was done; likewise.
        key: tells it from every other.
    """

    rows: int
    cut_s: float
    run_s: float | None = None
    ran_s: float | None = None
    key: str = field(default_factory=_key)


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One request.

    Attributes:
        method: the full name, `/package.Service/Method`.
        peer: where it came from.
        parent: the caller's span, if it told one.
        is_logged: whether the log hears of it.
        is_traced: whether it becomes spans.
        began_ns: nanoseconds since the epoch.
        began_s: the same moment.
        request_bytes: of its message.
        response_bytes: of all messages that answer it.
        request_id: the caller's own.
        model: that was asked for, then the one that was found; likewise its version.
        rows: 0 until the request was held against the model.
        length: entries of the longest row, 0 where that plays no part.
        arrived_s: when its model's account of it begins.
        queued_s: since when it waited for nothing but its model.
        batch: in which it ran.
        first_token_s: when the first step of its rows was done.
        steps: of its longest answer, for an encoder-decoder.
        code: how it ended.
        ended_s: when.
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
        """It was unpacked: so far these are only a caller's words."""
        self.model, self.version, self.request_id = map(_tame, (model, version, request_id))

    def queued(
        self,
        model: str,
        version: str,
        *,
        rows: int,
        length: int,
        arrived_s: float,
        queued_s: float,
    ) -> None:
        """It fits a model, and may be queued for it."""
        self.model, self.version = model, version
        self.rows, self.length = rows, length
        self.arrived_s, self.queued_s = arrived_s, queued_s


class Reply(Protocol):
    """Where the answer to one request goes: a unary call, or one request's place on a stream."""

    @property
    def record(self) -> RequestRecord | None:
        """The record of the request; None if neither log nor tracing wants one."""

    @property
    def cancelled(self) -> bool:
        """Whether the caller is gone."""

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """Send a `ModelInferResponse`, or a status; False if the caller is gone."""


def _tame(text: str) -> str:
    return printable(text[:_MOST_CHARACTERS])
