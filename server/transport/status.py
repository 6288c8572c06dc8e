"""The one table of statuses: which gRPC status each expected failure gets.

Any other exception is a bug: it is logged with an id, and its status is INTERNAL with that id.
"""

import logging
import math
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from weir.server import errors
from weir.server.errors import Cancelled, DeadlineExceeded, Draining, OutOfMemory
from weir.server.transport.base import Call, Metadata

logger = logging.getLogger(__name__)

CODE_OF: dict[type[errors.RequestError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.UnknownModel: grpc.StatusCode.NOT_FOUND,
    errors.ModelNotReady: grpc.StatusCode.UNAVAILABLE,
    errors.ModelNotLoaded: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Draining: grpc.StatusCode.UNAVAILABLE,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.OutOfMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ResponseTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.MetadataTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ClientTooSlow: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.Unsupported: grpc.StatusCode.UNIMPLEMENTED,
}

# Details travel in a header. A client accepts 8 KB of headers, and gRPC may write a byte as three.
_MAX_DETAILS_BYTES = 2000
INTERNAL = "internal"
REASON_OF = {error: re.sub(r"(?<=.)([A-Z])", r"_\1", error.__name__).lower() for error in CODE_OF}
REASONS = (*REASON_OF.values(), INTERNAL)
"""The metrics' names for failures: `invalid_request`, `unknown_model`, …"""

# If nothing is known of the queue: long enough for one of the default size to move.
_RETRY_AFTER_S = 0.1
# A longer pause leaves a model idle that has recovered.
_MAX_RETRY_AFTER_S = 10.0

STOPPING = Draining("the server is stopping")
"""The failure of a stream that is open when its server stops."""

# gRPC rounds a deadline up on the wire, by about a percent. A client whose deadline passes
# therefore closes the call before the server's own clock reaches that deadline.
_ROUNDED_UP = 0.05


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a failed call, and the reason under which metrics count the failure."""

    code: grpc.StatusCode
    details: str
    trailers: Metadata = ()
    reason: str = INTERNAL


def status_of(error: Exception) -> Status:
    """The status of a failure; logs the error if it is a bug."""
    if isinstance(error, MemoryError):
        error = OutOfMemory("the request needs more memory than there is")
    code = CODE_OF.get(type(error)) if isinstance(error, errors.RequestError) else None
    if code is None:
        error_id = uuid.uuid4().hex[:12]
        logger.error("internal error error_id=%s", error_id, exc_info=error)
        return Status(grpc.StatusCode.INTERNAL, f"internal error {error_id}")
    trailers = _retry_pushback(error) if isinstance(error, errors.Overloaded) else ()
    reason = REASON_OF[type(error)]  # type: ignore[index]
    return Status(code, _shortened(str(error)), trailers, reason)


def fail(call: Call, error: Exception) -> None:
    """End a call with the status of a failure."""
    status = status_of(error)
    call.finish(status.code, status.details, trailers=status.trailers)


def guarded(call: Call, handle: Callable[..., None], *arguments: object) -> None:
    """Run a handler; an exception that escapes it ends its call, not the thread."""
    try:
        handle(*arguments)
    except Exception as error:  # noqa: BLE001 - a transport's thread serves other calls too
        fail(call, error)


def closed_error(arrived_s: float, deadline_s: float, now: float) -> Cancelled | DeadlineExceeded:
    """The failure of a request whose client closed the call at `now`."""
    if deadline_s - now <= _ROUNDED_UP * (deadline_s - arrived_s):
        return DeadlineExceeded("the deadline passed")
    return Cancelled("the client closed the call")


def closed_code(open_s: float, left_s: float | None) -> grpc.StatusCode:
    """The status of a call that its client closed after `open_s`, `left_s` before its deadline."""
    if left_s is None:
        return grpc.StatusCode.CANCELLED
    return CODE_OF[type(closed_error(0.0, open_s + left_s, open_s))]


def _retry_pushback(error: errors.Overloaded) -> Metadata:
    """The trailer that says after how many milliseconds a client may try again."""
    after_s = _RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
    after_ms = max(1, math.ceil(1000 * min(after_s, _MAX_RETRY_AFTER_S)))
    return (("grpc-retry-pushback-ms", str(after_ms)),)


def _shortened(text: str) -> str:
    data = text.encode(errors="backslashreplace")
    if len(data) <= _MAX_DETAILS_BYTES:
        return text
    return data[:_MAX_DETAILS_BYTES].decode(errors="ignore") + " ..."
