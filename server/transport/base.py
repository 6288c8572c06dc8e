"""The interface of a transport: calls, handlers, limits. Two modules implement it.

Rules, the same for both:
- A handler runs on a transport's thread and returns at once; it may answer later, from any thread.
- An exception of a handler, or of a `receive` callback, ends its call with a status (`status`).
- A call is finished once: the first `finish` wins, later ones do nothing and return False.
- `on_close` fires at most once, when the client is gone or its deadline passed. It never fires
  after `finish`.
- A unary handler gets its message with the call. A stream handler receives each
  message by a call of `receive`, and None when the client sends no more or is gone.
"""

import errno
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import grpc

from weir.server.errors import ClientTooSlow, PortUnavailable
from weir.server.transport.call_stats import CallStats
from weir.server.transport.connections import Connections

Metadata = tuple[tuple[str, str | bytes], ...]

# A stream may have 128 open requests; at 512 tokens each they send as many messages, some 20 MB.
MAX_UNREAD_MESSAGES = 65_536


class Call(Protocol):
    """One call, from its arrival to its status."""

    @property
    def method(self) -> str:
        """The full name, `/package.Service/Method`."""

    @property
    def peer(self) -> str:
        """The client's address, for logs."""

    @property
    def metadata(self) -> Metadata:
        """The client's metadata."""

    @property
    def record(self) -> Any:
        """The request record that an interceptor attached, or None; no transport reads it."""

    @property
    def caller(self) -> Any:
        """The caller that a check set on the call's headers, or None; no transport reads it."""

    @property
    def cancelled(self) -> bool:
        """Whether the client is gone or its deadline passed."""

    def time_left_s(self) -> float | None:
        """Seconds until the client's deadline.

        If it set none: until the server's default deadline, counted from the headers; None for a
        stream of many messages.
        """

    def on_close(self, callback: Callable[[], None]) -> None:
        """Set the callback for a client that is gone; called at once if it is gone already."""

    def receive(self, callback: Callable[[bytes | None], None]) -> None:
        """Stream: receive the next message. At most one receive may be open at a time."""

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        """Stream: send a message, in order; `sent` fires when the next one may be handed over."""

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """End the call with a status, and before it the answer of a unary call.

        Returns:
            True if this ended the call; False if it had ended before or the client is gone.
        """


class Headers(Protocol):
    """The headers of a call, before its message is received; a check may set `caller`."""

    caller: Any

    @property
    def method(self) -> str:
        """The full name, `/package.Service/Method`."""

    @property
    def metadata(self) -> Metadata:
        """The client's metadata."""

    @property
    def peer(self) -> str:
        """The client's address, for logs; empty if it is not known yet."""


Check = Callable[[Headers], None]
"""Refuses a call by its headers: raises the RequestError whose status ends the call."""


@dataclass(frozen=True, slots=True)
class Unary:
    """The handler of a method with one message in and one out."""

    handle: Callable[[Call, bytes], None]
    kind: Literal["unary"] = "unary"


@dataclass(frozen=True, slots=True)
class Stream:
    """The handler of a stream; a `server_stream` gets one message, a `bidi_stream` any number."""

    handle: Callable[[Call], None]
    kind: Literal["server_stream", "bidi_stream"] = "bidi_stream"


Handlers = Mapping[str, Unary | Stream]


def unavailable(address: str, limits: "Limits", *, has_tls: bool) -> PortUnavailable:
    """The error for an address that core cannot bind; core itself does not say why."""
    host, _, port = address.rpartition(":")
    reason = "the port is in use"
    if has_tls:
        reason += ", or gRPC core does not take the certificate or its key"
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, sockaddr = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(sockaddr)
    except OSError as error:
        reason = error.strerror or str(error)
        if limits.shares_port and error.errno == errno.EADDRINUSE:
            reason += " by another user's process, or by one that does not share its port"
    return PortUnavailable(f"cannot listen on {address}: {reason}")


class BoundedSender:
    """Backpressure: sends messages on a stream while its client reads them.

    A generated text goes on at the model's pace, not at the client's. Without a bound, a client
    that reads nothing fills the server's memory.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._unread = 0

    def send(self, message: bytes) -> None:
        """Queue a message; from any thread.

        Raises:
            ClientTooSlow: `MAX_UNREAD_MESSAGES` are queued already.
        """
        with self._lock:
            if self._unread >= MAX_UNREAD_MESSAGES:
                raise ClientTooSlow(f"{self._unread} messages of this stream wait to be read")
            self._unread += 1
        self._call.send(message, self._sent)

    def _sent(self) -> None:
        with self._lock:
            self._unread -= 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a connection and of its messages.

    Attributes:
        message_bytes: of one message, in either direction.
        metadata_bytes: of a call's metadata; four times as much closes the connection.
        concurrent_streams: open calls of one connection; more wait at the client.
        open_calls: of all connections; more are refused.
        default_deadline_s: of a call whose client sets none; see `open_calls`.
        max_deadline_s: the longest deadline of a client that counts.
        connections: in all; None is no limit. Core closes further ones when it has accepted them.
        connections_by_peer: of one address; None is no limit.
        handshake_timeout_s: for a connection that sends nothing.
        idle_s: of a connection without an open call; 0 is no limit.
        age_s: of a connection, after which its client is told to go (GOAWAY); 0 is no limit.
        age_grace_s: for the open calls of such a connection.
        keepalive_s: without a frame of the client, after which it is pinged.
        keepalive_timeout_s: for the answer to that ping.
        ping_interval_s: minimum between keepalive pings, with and without open calls.
        shares_port: other processes may listen on the same port, if they share it too; the system
            gives each new connection to one of them.
    """

    message_bytes: int = 32 * 1024 * 1024
    metadata_bytes: int = 16 * 1024
    concurrent_streams: int = 1024
    open_calls: int = 10_000
    default_deadline_s: float = 60.0
    max_deadline_s: float = 3600.0
    connections: int | None = None
    connections_by_peer: int | None = None
    handshake_timeout_s: float = 5.0
    idle_s: float = 0.0
    age_s: float = 0.0
    age_grace_s: float = 60.0
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    ping_interval_s: float = 5.0
    shares_port: bool = False

    def channel_arguments(self) -> tuple[tuple[str, int], ...]:
        """The limits as gRPC core takes them."""
        optional = {
            "grpc.max_allowed_incoming_connections": self.connections,
            "grpc.max_connection_idle_ms": _milliseconds(self.idle_s),
            "grpc.max_connection_age_ms": _milliseconds(self.age_s),
        }
        return (
            *((name, value) for name, value in optional.items() if value is not None),
            ("grpc.max_connection_age_grace_ms", int(self.age_grace_s * 1000)),
            ("grpc.keepalive_time_ms", int(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", int(self.keepalive_timeout_s * 1000)),
            # A server's core waits for the answer to any ping this long, whatever the line above.
            ("grpc.http2.ping_timeout_ms", int(self.keepalive_timeout_s * 1000)),
            ("grpc.so_reuseport", int(self.shares_port)),
            ("grpc.max_receive_message_length", self.message_bytes),
            ("grpc.max_send_message_length", self.message_bytes),
            ("grpc.max_metadata_size", self.metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.metadata_bytes),
            ("grpc.max_concurrent_streams", self.concurrent_streams),
            ("grpc.server_handshake_timeout_ms", int(self.handshake_timeout_s * 1000)),
            ("grpc.http2.min_ping_interval_without_data_ms", int(self.ping_interval_s * 1000)),
            # Without this, core expects two hours between the pings of an idle connection.
            ("grpc.keepalive_permit_without_calls", 1),
        )


def _milliseconds(limit_s: float) -> int | None:
    """A limit as core takes it; None for 0, which is no limit."""
    return max(1, int(limit_s * 1000)) if limit_s else None


class IoStats(Protocol):
    """Statistics of a transport's I/O thread."""

    @property
    def busy_s(self) -> float:
        """Time in which the thread did not wait for an event."""

    def delay_s(self) -> float:
        """How long an event waits for the thread now; 0 if no call is open."""

    @property
    def thread_name(self) -> str:
        """The thread's name."""

    def turns(self) -> float | None:
        """A number that changes when the thread turns; None while it has nothing to do."""


class Transport(Protocol):
    """A gRPC server, bound to an address.

    It is made from `host:port` (port 0 is a free one), the handlers by full method name, the
    limits, the checks of each call's headers, and the credentials of TLS, or None for plaintext.
    With `socket_path` it also listens on a unix socket there, in plaintext: who may connect is
    decided by the permissions of its directory. It raises PortUnavailable if an address cannot be
    bound.
    """

    @property
    def name(self) -> str:
        """The value of `--transport`."""

    @property
    def port(self) -> int:
        """The bound port."""

    @property
    def calls(self) -> CallStats:
        """Statistics of its calls."""

    @property
    def io(self) -> IoStats | None:
        """Its I/O thread; None if it has more than one."""

    def expire(self, now: float) -> float:
        """End the calls whose message is late; the time of the next look; see `open_calls`."""

    @property
    def connections(self) -> Connections:
        """The connections of its port and of its unix socket."""

    @property
    def open_calls(self) -> int:
        """The number of open calls."""

    def refuse_waiting(self, error: Exception, methods: tuple[str, ...]) -> int:
        """Refuse the calls whose first message has not arrived in full; returns how many.

        Args:
            methods: how the full names of their methods begin.
        """

    def start(self) -> None:
        """Begin to take calls."""

    def close_port(self) -> None:
        """Accept no connections and no calls from now on; open calls go on until `stop`.

        Clients are told to go (GOAWAY): their next call opens a connection to another process that
        shares the port.
        """

    def stop(self, grace_s: float) -> bool:
        """Refuse new calls, wait for open ones, and cancel the rest after the grace period.

        A call that arrives late ends with UNAVAILABLE, until the connections are closed.

        Returns:
            True if all open calls ended within the grace period.

        An open stream ends with UNAVAILABLE after its queued messages. Otherwise a stream that
        idles, such as a health watch, would hold up every stop for the whole grace.
        """
