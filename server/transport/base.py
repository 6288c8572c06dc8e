"""What a handler sees of a call, and what a transport is. Two implementations stand beside it.

Rules, the same for both:
- A handler runs on a transport's thread and returns at once; it may answer later, from any thread.
- A call is finished once: the first `finish` wins, later ones do nothing and return False.
- `on_close` fires at most once, when the caller is gone or its deadline passed; never after `finish`.
- A unary handler gets its message with the call. A stream handler asks for each message, and hears
  None when the caller will send no more, or is gone.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import grpc

from weir.server.transport.call_stats import Calls
from weir.server.transport.io_watch import IoWatch

logger = logging.getLogger(__name__)

Metadata = tuple[tuple[str, str | bytes], ...]


class Call(Protocol):
    """One call, from its arrival to its status."""

    @property
    def method(self) -> str:
        """The full name, `/package.Service/Method`."""

    @property
    def peer(self) -> str:
        """Where it comes from, for logs."""

    @property
    def metadata(self) -> Metadata:
        """What the caller sent beside the message."""

    @property
    def record(self) -> Any:
        """The request record that an interceptor attached, or None; the transport reads none."""

    @property
    def cancelled(self) -> bool:
        """Whether the caller is gone or its deadline passed."""

    def time_left_s(self) -> float | None:
        """Seconds until the caller's deadline; None if it set none."""

    def on_close(self, callback: Callable[[], None]) -> None:
        """Ask to be told when nobody waits any longer; at once if that is so already."""

    def receive(self, callback: Callable[[bytes | None], None]) -> None:
        """Stream: ask for the next message. One may be asked for at a time."""

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
            Whether this was the call's end; False if it had ended before, or nobody waits.
        """


@dataclass(frozen=True, slots=True)
class Unary:
    """A method of one message in and one out."""

    handle: Callable[[Call, bytes], None]
    kind: Literal["unary"] = "unary"


@dataclass(frozen=True, slots=True)
class Stream:
    """A method of any number of messages in and out, or (`server_stream`) of one in and any number out."""

    handle: Callable[[Call], None]
    kind: Literal["server_stream", "bidi_stream"] = "bidi_stream"


STOPPING = (grpc.StatusCode.UNAVAILABLE, "the server is stopping")
"""How a stream ends that is open when its server stops."""

Handlers = Mapping[str, Unary | Stream]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection or message may cost.

    Attributes:
        message_bytes: of one message, in either direction.
        metadata_bytes: of a call's metadata.
        concurrent_streams: open calls of one connection; more wait at the client.
        handshake_timeout_s: for a connection that says nothing.
    """

    message_bytes: int = 16 * 1024 * 1024
    metadata_bytes: int = 16 * 1024
    concurrent_streams: int = 1024
    handshake_timeout_s: float = 5.0

    def channel_arguments(self) -> tuple[tuple[str, int], ...]:
        """The limits as gRPC core takes them."""
        return (
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self.message_bytes),
            ("grpc.max_send_message_length", self.message_bytes),
            ("grpc.max_metadata_size", self.metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.metadata_bytes),
            ("grpc.max_concurrent_streams", self.concurrent_streams),
            ("grpc.server_handshake_timeout_ms", int(self.handshake_timeout_s * 1000)),
        )


def guarded(call: Call, handle: Callable[..., None], *arguments: object) -> None:
    """Run a handler; it maps its own errors, and one that escapes must end its call, not a thread."""
    try:
        handle(*arguments)
    except Exception:
        logger.exception("handler failed method=%s", call.method)
        call.finish(grpc.StatusCode.INTERNAL, "internal error")


class Transport(Protocol):
    """A listening gRPC server."""

    @property
    def name(self) -> str:
        """As `--transport` takes it."""

    @property
    def port(self) -> int:
        """The bound port."""

    @property
    def calls(self) -> Calls:
        """What it has carried."""

    @property
    def io(self) -> IoWatch | None:
        """Its I/O thread; None where there is not the one."""

    def start(self) -> None:
        """Begin to take calls."""

    def stop(self, grace_s: float) -> None:
        """Take no more calls, wait for open ones, cancel what is left after the grace.

        Streams are ended, UNAVAILABLE, after what they were given to send: one that idles, such as
        somebody's watch of our health, would hold up every stop for the whole grace.
        """
