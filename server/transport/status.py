"""The one table: expected failures → gRPC statuses. Anything else is our bug, and INTERNAL."""

import logging
import re
import uuid
from dataclasses import dataclass

import grpc

from weir.server import errors
from weir.server.transport.base import Metadata

logger = logging.getLogger(__name__)

STATUS_OF: dict[type[errors.RequestError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownModel: grpc.StatusCode.NOT_FOUND,
    errors.ModelNotReady: grpc.StatusCode.UNAVAILABLE,
    errors.ModelNotLoaded: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Draining: grpc.StatusCode.UNAVAILABLE,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.OutOfMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ResponseTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ClientTooSlow: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.Unsupported: grpc.StatusCode.UNIMPLEMENTED,
}

# They travel in a header, of which a client takes 8 KB, and each byte may be written as three.
_MOST_DETAILS_BYTES = 2000
INTERNAL = "internal"
REASON_OF = {error: re.sub(r"(?<=.)([A-Z])", r"_\1", error.__name__).lower() for error in STATUS_OF}
REASONS = (*REASON_OF.values(), INTERNAL)
"""How failures are called in metrics: `invalid_request`, `unknown_model`, …"""

# Long enough for a queue of the default size to move, short enough not to idle a client.
_RETRY_PUSHBACK: Metadata = (("grpc-retry-pushback-ms", "100"),)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a failure is told to the caller, and (`reason`) how it is counted."""

    code: grpc.StatusCode
    details: str
    trailers: Metadata = ()
    reason: str = INTERNAL


def refusal_of(error: Exception) -> Refusal:
    """What the caller hears of a failure; a bug is logged, and told by its id alone."""
    code = STATUS_OF.get(type(error)) if isinstance(error, errors.RequestError) else None
    if code is None:
        error_id = uuid.uuid4().hex[:12]
        logger.error("internal error error_id=%s", error_id, exc_info=error)
        return Refusal(grpc.StatusCode.INTERNAL, f"internal error {error_id}")
    trailers = _RETRY_PUSHBACK if isinstance(error, errors.Overloaded) else ()
    reason = REASON_OF[type(error)]  # type: ignore[index]
    return Refusal(code, _shortened(str(error)), trailers, reason)


def _shortened(text: str) -> str:
    data = text.encode(errors="backslashreplace")
    if len(data) <= _MOST_DETAILS_BYTES:
        return text
    return data[:_MOST_DETAILS_BYTES].decode(errors="ignore") + " ..."
