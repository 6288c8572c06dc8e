"""Errors of the clients and the command line, grouped by what the caller should do next.

    WeirError
    ├── UsageError               correct the arguments as the message says
    ├── MissingExtra             install the part of Weir that the message names
    └── CallError                a call failed
        ├── InvalidArgument      correct the request
        ├── NotFound             correct the name or the version
        ├── OutOfRange           correct the request
        ├── Unimplemented        use another feature, or another server
        ├── Unauthenticated      present a credential
        ├── PermissionDenied     present another credential
        ├── ResourceExhausted    wait `retry_after_s`, then try again; or send less
        ├── Unavailable          try again, or try another server
        │   ├── Unreachable      start a server, or correct its address
        │   └── HandshakeFailed  correct the TLS arguments, or the server's certificate
        ├── Aborted              try again
        ├── DeadlineExceeded     raise the timeout
        ├── Cancelled            nothing: the caller cancelled
        ├── AlreadyExists        nothing: the work is done
        ├── FailedPrecondition   change the server's state first
        ├── Internal             report it, with the error id of the message
        ├── DataLoss             report it
        └── Unknown              the server sent no status

Each gRPC status has one leaf; a call that the server cancelled is `Unavailable`, not `Cancelled`.
Only a client can detect `Unreachable` and `HandshakeFailed`. This module imports no third-party
package, so that a command can report a missing one.
"""

import re
from collections.abc import Iterable
from typing import Protocol, cast
from urllib.parse import unquote

PUSHBACK = "grpc-retry-pushback-ms"

# gRPC's message for an unreachable server, up to the address.
_UNREACHABLE = re.compile(
    r"(?:(?:failed to connect to all addresses|connections to all backends failing); "
    r"last error: (?:\w+: )?(?:ipv[46]:)?"
    r"|errors resolving |DNS resolution failed for )(\S+): "
)
# Its message for a server with another protocol, for instance the metrics port.
_NO_GRPC = "Failed parsing HTTP/2"
# Its messages for a TLS handshake that failed, which follow the address; the reason in words.
_HANDSHAKE = re.compile(r"(?:Tls|Ssl) handshake failed|Custom verification check failed")
_REJECTED = re.compile(r"CERTIFICATE_VERIFY_FAILED: (.*?)(?:: OK)?$")
_OTHER_NAME = re.compile(r"Hostname Verification Check failed|is not in peer certificate")
_NO_TLS = "WRONG_VERSION_NUMBER"
# Its messages for a peer that closes the connection before it speaks HTTP/2.
_CLOSED = re.compile(r"Socket closed|recvmsg:|Connection reset by peer")
_UNKNOWN_CA = ("unable to get", "self signed", "self-signed")

# Its messages for a connection lost during a call: the process or the network failed.
_CONNECTION_LOST = re.compile(r"Stream removed|Socket closed|recvmsg:|Connection reset by peer")

# Its messages for a server that its health check leaves out, which follow the address.
_NOT_SERVING = "backend unhealthy"
_HEALTH_FAILED = "health check call failed"
# Its messages for a call that this client cancelled; others are of the server.
_CANCELLED_HERE = ("Locally cancelled", "Channel closed")

# Its message for a message that is too large; the server's own begins with SERVER.
_TOO_LARGE = re.compile(
    r"(?:CLIENT: |(SERVER: ))?(?:Received|Sent) message larger than max \((\d+) vs\. (\d+)\)"
)


class WeirError(Exception):
    """Base of all expected errors of this package."""


class UsageError(WeirError):
    """The arguments are invalid."""


class MissingExtra(WeirError):
    """An extra that is not installed is needed."""


class CallError(WeirError):
    """A call failed; `retry_after_s` is the server's delay before a retry, None if it gave none."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InvalidArgument(CallError):
    """The request breaks the model's contract."""


class NotFound(CallError):
    """No such model, version or service."""


class OutOfRange(CallError):
    """A value is outside the range that the server accepts."""


class Unimplemented(CallError):
    """The server does not offer the feature."""


class Unauthenticated(CallError):
    """The server got no credential, or a wrong one."""


class PermissionDenied(CallError):
    """The credential does not allow this."""


class ResourceExhausted(CallError):
    """The queue is full, memory is short, or the message is too large."""


class Unavailable(CallError):
    """The server is unreachable or stopping, or the model is not ready."""


class Unreachable(Unavailable):
    """No server answers at the address."""


class HandshakeFailed(Unavailable):
    """No TLS session: one side speaks plaintext, or rejects the certificate of the other."""


class Aborted(CallError):
    """The server aborted the call."""


class DeadlineExceeded(CallError):
    """The call exceeded its deadline."""


class Cancelled(CallError):
    """The call was cancelled."""


class AlreadyExists(CallError):
    """The thing to create exists."""


class FailedPrecondition(CallError):
    """The server is not in the state the call needs."""


class Internal(CallError):
    """A bug in the server, or a response that breaks the protocol."""


class DataLoss(CallError):
    """The server lost data."""


class Unknown(CallError):
    """The server sent no status, or an unknown one."""


BY_STATUS = {
    re.sub(r"(?<=[a-z])(?=[A-Z])", "_", leaf.__name__).upper(): leaf
    for leaf in CallError.__subclasses__()
}
"""Each leaf by its gRPC status, such as `INVALID_ARGUMENT`."""


class _Status(Protocol):
    @property
    def name(self) -> str: ...


class Failure(Protocol):
    """The interface that errors of grpc and grpc.aio share."""

    def code(self) -> _Status:
        """The status."""

    def details(self) -> str | None:
        """The server's message."""

    def trailing_metadata(self) -> Iterable[object] | None:
        """The trailers: pairs of name and value."""


def from_failure(
    failure: Failure, proxy: str = "", *, is_tls: bool = False, servers: str = ""
) -> CallError:
    """The leaf for a call's status, with the server's message and retry delay.

    Args:
        proxy: the proxy that the call went through, with what names it.
        is_tls: whether the channel uses TLS.
        servers: the target of a client with several servers.
    """
    status = failure.code().name
    message = failure.details() or status.lower().replace("_", " ")
    through = f", through {proxy}; no_proxy=HOST avoids it" if proxy else ""
    if status == "UNAVAILABLE" and (found := _UNREACHABLE.match(message)):
        address, reason = unquote(found[1]), message[found.end() :]
        return _unreachable(address, reason, through, is_tls=is_tls, servers=servers)
    if status == "CANCELLED" and not message.startswith(_CANCELLED_HERE):
        # gRPC core ends a call so that reaches a server which is shutting down.
        return Unavailable(f"the server ended the call before the answer ({message})")
    if status in {"UNAVAILABLE", "UNKNOWN"} and _CONNECTION_LOST.match(message):
        return Unavailable(f"the connection was lost before the answer ({message})")
    if status == "RESOURCE_EXHAUSTED" and (sizes := _TOO_LARGE.match(message)):
        setting = "the server's --max-message-bytes" if sizes[1] else "max_message_bytes"
        message = f"message: expected at most {sizes[3]} bytes ({setting}), got {sizes[2]}"
    retry_after_s = _retry_after_s(failure.trailing_metadata() or ())
    return BY_STATUS.get(status, Unknown)(message, retry_after_s=retry_after_s)


def _unreachable(
    address: str, reason: str, through: str, *, is_tls: bool, servers: str
) -> Unavailable:
    """The error for gRPC's reason why it has no connection to a server."""
    if reason.startswith(_NOT_SERVING):
        return Unavailable(f"no server of {servers} is serving")
    if reason.startswith(_HEALTH_FAILED):
        return Unavailable(
            f"the health check of the server at {address} fails: it may expect a token "
            "(--token-file)"
        )
    if failed := _handshake_failure(address, reason, is_tls=is_tls):
        return HandshakeFailed(f"{failed}{through}")
    if reason.startswith(_NO_GRPC):
        return Unreachable(f"the server at {address} speaks no gRPC{through}")
    return Unreachable(f"no server answers at {servers or address}{through}")


def _handshake_failure(address: str, message: str, *, is_tls: bool) -> str:
    """Why the TLS handshake failed, and the argument to correct; empty for another failure."""
    if _CLOSED.match(message):
        if is_tls:
            return (
                f"the server at {address} closed the connection during the TLS handshake: it may "
                "require a certificate of an authority that it trusts (--cert, --key)"
            )
        return f"the server at {address} closed the plaintext connection: it may expect TLS (--tls)"
    if not _HANDSHAKE.match(message):
        return ""
    if _NO_TLS in message:
        return f"the server at {address} speaks no TLS (--tls)"
    if _OTHER_NAME.search(message):
        return (
            f"the certificate of the server at {address} has another name than the target: give "
            "the name that it has (--server-name)"
        )
    rejected = _REJECTED.search(message)
    reason = rejected[1] if rejected else message
    hint = ": give its authority (--ca)" if reason.startswith(_UNKNOWN_CA) else ""
    return f"the certificate of the server at {address} is rejected ({reason}){hint}"


def _retry_after_s(trailers: Iterable[object]) -> float | None:
    """The retry pushback of the trailers; None if absent or negative ("do not retry")."""
    pairs = dict(cast("Iterable[tuple[str, str | bytes]]", trailers))
    try:
        pushback_ms = int(pairs.get(PUSHBACK, -1))
    except ValueError:
        return None
    return pushback_ms / 1000 if pushback_ms >= 0 else None
