"""What goes wrong for those who call a server, or type a command.

    WeirError
    ├── UsageError               say it differently; the message tells how
    ├── MissingExtra             install the part of Weir that the message names
    └── CallError                a call came back without an answer
        ├── InvalidArgument      correct the request
        ├── NotFound             correct the name or the version
        ├── OutOfRange           correct the request
        ├── Unimplemented        do without the feature
        ├── Unauthenticated      present a credential
        ├── PermissionDenied     present another credential
        ├── ResourceExhausted    wait `retry_after_s`, then try again; or send less
        ├── Unavailable          try again, or another server
        │   └── Unreachable      start a server, or correct its address
        ├── Aborted              try again
        ├── DeadlineExceeded     give it more time
        ├── Cancelled            nothing: the caller itself gave up
        ├── AlreadyExists        nothing: it is done
        ├── FailedPrecondition   change the server's state first
        ├── Internal             report it, with the error id in the message
        ├── DataLoss             report it
        └── Unknown              the server did not say which of these it is

One leaf for each status of gRPC, and one more for what only a client can see. This module imports nothing, so that a command can report what is
missing before anything is installed.
"""

import re
from collections.abc import Iterable
from typing import Protocol, cast
from urllib.parse import unquote

PUSHBACK = "grpc-retry-pushback-ms"

# gRPC's own words for a server that is not there, up to the address that was tried.
_NOBODY = re.compile(
    r"(?:failed to connect to all addresses; last error: \w+: (?:ipv[46]:)?"
    r"|errors resolving |DNS resolution failed for )(\S+): "
)
# Its words for one that speaks something else, as the port of the metrics does.
_NO_GRPC = "Failed parsing HTTP/2"
# Its words for a connection that broke under a call: the process was killed, or the network failed.
_GONE = re.compile(r"Stream removed|Socket closed|recvmsg:|Connection reset by peer")


class WeirError(Exception):
    """Anything expected that goes wrong in this package."""


class UsageError(WeirError):
    """What was asked for cannot be done as it was asked."""


class MissingExtra(WeirError):
    """A part of Weir that is not installed is needed."""


class CallError(WeirError):
    """A call came back without an answer.

    Attributes:
        retry_after_s: how long the server asks to wait before the next try, None if it does not.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InvalidArgument(CallError):
    """The request breaks the model's contract."""


class NotFound(CallError):
    """No such model, version or service."""


class OutOfRange(CallError):
    """A value lies outside what the server takes."""


class Unimplemented(CallError):
    """The server does not offer the feature."""


class Unauthenticated(CallError):
    """The server wants a credential and got none, or a wrong one."""


class PermissionDenied(CallError):
    """The credential does not allow this."""


class ResourceExhausted(CallError):
    """The queue is full, memory is short, or the message is too large."""


class Unavailable(CallError):
    """No server there, the model is not ready, or the server is about to stop."""


class Unreachable(Unavailable):
    """No server answers there."""


class Aborted(CallError):
    """The server gave the call up half-way."""


class DeadlineExceeded(CallError):
    """The answer did not come in time."""


class Cancelled(CallError):
    """The call was cancelled."""


class AlreadyExists(CallError):
    """What was to be made exists."""


class FailedPrecondition(CallError):
    """The server is not in the state the call needs."""


class Internal(CallError):
    """A fault in the server, or an answer that breaks the protocol."""


class DataLoss(CallError):
    """The server lost data."""


class Unknown(CallError):
    """The server did not say what kind of failure it was."""


BY_STATUS: dict[str, type[CallError]] = {
    "CANCELLED": Cancelled,
    "UNKNOWN": Unknown,
    "INVALID_ARGUMENT": InvalidArgument,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": AlreadyExists,
    "PERMISSION_DENIED": PermissionDenied,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "FAILED_PRECONDITION": FailedPrecondition,
    "ABORTED": Aborted,
    "OUT_OF_RANGE": OutOfRange,
    "UNIMPLEMENTED": Unimplemented,
    "INTERNAL": Internal,
    "UNAVAILABLE": Unavailable,
    "DATA_LOSS": DataLoss,
    "UNAUTHENTICATED": Unauthenticated,
}


class _Status(Protocol):
    @property
    def name(self) -> str: ...


class Failure(Protocol):
    """What grpc's and grpc.aio's errors have in common."""

    def code(self) -> _Status:
        """The status."""
        ...

    def details(self) -> str | None:
        """The server's message."""
        ...

    def trailing_metadata(self) -> Iterable[object] | None:
        """The trailers: pairs of name and value."""
        ...


def from_failure(failure: Failure) -> CallError:
    """The leaf for the status a call ended with, with the server's message and hint."""
    status = failure.code().name
    message = failure.details() or status.lower().replace("_", " ")
    if status == "UNAVAILABLE" and (nobody := _NOBODY.match(message)):
        who = unquote(nobody[1])
        if message.startswith(_NO_GRPC, nobody.end()):
            return Unreachable(f"what answers at {who} speaks no gRPC")
        return Unreachable(f"no server answers at {who}")
    if status in {"UNAVAILABLE", "UNKNOWN"} and _GONE.match(message):
        return Unavailable(f"the server went away before it answered ({message})")
    retry_after_s = _retry_after_s(failure.trailing_metadata() or ())
    return BY_STATUS.get(status, Unknown)(message, retry_after_s=retry_after_s)


def _retry_after_s(trailers: Iterable[object]) -> float | None:
    """The pushback among the trailers; a negative one, "do not try again", is none."""
    pairs = dict(cast("Iterable[tuple[str, str | bytes]]", trailers))
    try:
        pushback_ms = int(pairs.get(PUSHBACK, -1))
    except ValueError:
        return None
    return pushback_ms / 1000 if pushback_ms >= 0 else None
