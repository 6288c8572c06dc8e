"""A raw HTTP/2 client: a socket, frames and gRPC's message framing, without any good manners.

It sends what no library sends: blocks of any bytes, settings that are never acknowledged, windows
that never open. Each wait ends after `timeout_s`.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import hpack

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4
NO_ERROR, CANCEL, ENHANCE_YOUR_CALM = 0, 8, 11

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW_BYTES = 65_535
TIMEOUT_S = 30.0


class ConnectionEnded(Exception):
    """The server closed the connection, or reset it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def __bytes__(self) -> bytes:
        head = bytes([self.kind, self.flags]) + self.stream.to_bytes(4, "big")
        return len(self.payload).to_bytes(3, "big") + head + self.payload


@dataclass(slots=True)
class Answer:
    """What a stream got until it ended.

    Attributes:
        headers: of the answer and its trailers, together.
        body: its DATA, with gRPC's framing.
        reset: the error code of RST_STREAM, or None.
    """

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: int | None = None

    @property
    def status(self) -> int | None:
        """The number of the gRPC status; None if none was sent."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def messages(self) -> list[bytes]:
        """The whole messages of the body."""
        found, rest = [], self.body
        while len(rest) >= 5:
            end = 5 + int.from_bytes(rest[1:5], "big")
            found.append(rest[5:end])
            rest = rest[end:]
        return found


class Http2Client:
    """One connection.

    Args:
        target: `host:port`.
        settings: of its SETTINGS frame, by identifier.
        acknowledges: whether it acknowledges the server's settings.
        answers_pings: whether it acknowledges the server's pings.
        opens_windows: whether it gives back the window of the DATA that it reads.
        receive_buffer_bytes: of the socket; a small one makes a slow reader.
        greets: whether it sends preface and settings at once.
        tls: wraps the socket, with ALPN as the context has it.
    """

    def __init__(
        self,
        target: str,
        *,
        settings: Mapping[int, int] | None = None,
        acknowledges: bool = True,
        answers_pings: bool = True,
        opens_windows: bool = True,
        receive_buffer_bytes: int | None = None,
        greets: bool = True,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        host, _, port = target.rpartition(":")
        address = (host.strip("[]"), int(port))
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        self.socket = socket.socket(*found[:3])
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(timeout_s)
        try:
            self.socket.connect(found[4])
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname=host)
            self._decoder = hpack.Decoder()
            self._acknowledges = acknowledges
            self._answers_pings = answers_pings
            self._opens_windows = opens_windows
            self._received = b""
            self._next_stream = 1
            if greets:
                self.greet(settings or {})
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    # Sending

    def send(self, data: bytes) -> None:
        """Send any bytes."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as error:
            raise ConnectionEnded(str(error)) from error

    def send_frame(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        """Send a frame."""
        self.send(bytes(Frame(kind, flags, stream, payload)))

    def greet(self, settings: Mapping[int, int]) -> None:
        """Send preface and SETTINGS."""
        payload = b"".join(
            number.to_bytes(2, "big") + value.to_bytes(4, "big")
            for number, value in settings.items()
        )
        self.send(PREFACE + bytes(Frame(SETTINGS, 0, 0, payload)))

    def new_stream(self) -> int:
        """The number of a stream that was not opened yet."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        return stream

    def send_headers(self, stream: int, block: bytes, flags: int = END_HEADERS) -> None:
        """Send a header block, as its bytes are."""
        self.send_frame(HEADERS, flags, stream, block)

    def send_block(self, stream: int, block: bytes) -> None:
        """Send a header block of any size: what does not fit into one frame is continued."""
        parts = [block[start : start + 16_384] for start in range(0, len(block), 16_384)]
        for part in parts:
            kind = HEADERS if part is parts[0] else CONTINUATION
            self.send_frame(kind, END_HEADERS if part is parts[-1] else 0, stream, part)

    def send_data(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """Send DATA, in frames of at most 16 KiB; the server's window is not looked at."""
        parts = [data[start : start + 16_384] for start in range(0, len(data), 16_384)] or [b""]
        self.send(
            b"".join(
                bytes(Frame(DATA, END_STREAM if ends and part is parts[-1] else 0, stream, part))
                for part in parts
            )
        )

    def reset(self, stream: int, code: int = CANCEL) -> None:
        """Send RST_STREAM."""
        self.send_frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))

    def ping(self, payload: bytes = bytes(8)) -> None:
        """Send PING."""
        self.send_frame(PING, 0, 0, payload)

    def open_window(self, stream: int, size_bytes: int) -> None:
        """Send WINDOW_UPDATE; stream 0 is the connection."""
        self.send_frame(WINDOW_UPDATE, 0, stream, size_bytes.to_bytes(4, "big"))

    def call(self, path: str, message: bytes | None = None, **headers: str) -> int:
        """Start a call; its stream.

        Args:
            path: `/package.Service/Method`.
            message: the one message; None leaves the stream open.
            headers: further ones, `_` for `-`, such as `grpc_timeout="1S"`.
        """
        stream = self.new_stream()
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        self.send_block(stream, literals(grpc_headers(path) | more))
        if message is not None:
            self.send_data(stream, framed(message), ends=True)
        return stream

    # Receiving

    def frames(self) -> Iterator[Frame]:
        """Frames until the server closes the connection; settings and pings are answered."""
        while True:
            try:
                yield self.next_frame()
            except ConnectionEnded:
                return

    def next_frame(self) -> Frame:
        """The next frame, after settings, pings and windows are answered.

        Raises:
            ConnectionEnded: there is none.
            TimeoutError: none came in time.
        """
        head = self._read(9)
        frame = Frame(
            kind=head[3],
            flags=head[4],
            stream=int.from_bytes(head[5:9], "big") & 0x7FFF_FFFF,
            payload=self._read(int.from_bytes(head[:3], "big")),
        )
        is_ack = bool(frame.flags & ACK)
        if frame.kind == SETTINGS and not is_ack and self._acknowledges:
            self.send_frame(SETTINGS, ACK, 0)
        elif frame.kind == PING and not is_ack and self._answers_pings:
            self.send_frame(PING, ACK, 0, frame.payload)
        elif frame.kind == DATA and frame.payload and self._opens_windows:
            self.open_window(0, len(frame.payload))
            if not frame.flags & END_STREAM:
                self.open_window(frame.stream, len(frame.payload))
        return frame

    def decoded(self, frame: Frame) -> dict[str, str]:
        """The headers of a HEADERS frame; each is decoded once, in order."""
        return {str(name): str(value) for name, value in self._decoder.decode(frame.payload)}

    def answer(self, stream: int) -> Answer:
        """Read until a stream ends; frames of other streams are dropped.

        Raises:
            ConnectionEnded: the connection was closed before.
        """
        answer = Answer()
        while True:
            frame = self.next_frame()
            if frame.kind == HEADERS:
                # Blocks of all streams are decoded, as they share a table.
                found = self.decoded(frame)
            if frame.stream != stream:
                continue
            if frame.kind == RST_STREAM:
                answer.reset = int.from_bytes(frame.payload, "big")
                return answer
            if frame.kind == HEADERS:
                answer.headers |= found
            elif frame.kind == DATA:
                answer.body += frame.payload
            if frame.kind in (DATA, HEADERS) and frame.flags & END_STREAM:
                return answer

    def unary(self, path: str, message: bytes, **headers: str) -> Answer:
        """Call a method with one message; see `call`."""
        return self.answer(self.call(path, message, **headers))

    def wait_for_end(self) -> Frame | None:
        """Read until the server closes the connection; its last GOAWAY, or None."""
        goodbye = None
        for frame in self.frames():
            goodbye = frame if frame.kind == GOAWAY else goodbye
        return goodbye

    def _read(self, size_bytes: int) -> bytes:
        while len(self._received) < size_bytes:
            try:
                data = self.socket.recv(65_536)
            except ConnectionResetError as error:
                raise ConnectionEnded(str(error)) from error
            if not data:
                raise ConnectionEnded("the server closed the connection")
            self._received += data
        data, self._received = self._received[:size_bytes], self._received[size_bytes:]
        return data


def grpc_headers(path: str) -> dict[str, str]:
    """The headers of a gRPC call."""
    return {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "weir",
        "te": "trailers",
        "content-type": "application/grpc",
    }


def framed(message: bytes) -> bytes:
    """A message with gRPC's prefix, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def literals(headers: Mapping[str, str]) -> bytes:
    """A header block of literals without indexing and without Huffman's code."""
    return b"".join(b"\0" + text(name) + text(value) for name, value in headers.items())


def indexed(name: str, value: str) -> bytes:
    """A literal that enters the dynamic table; `reference(0)` is the newest entry."""
    return b"\x40" + text(name) + text(value)


def reference(age: int) -> bytes:
    """A reference to the dynamic table; 0 is the newest entry."""
    return number(62 + age, 7, 0x80)


def text(value: str) -> bytes:
    """A string of a header block."""
    data = value.encode()
    return number(len(data), 7, 0) + data


def number(value: int, bits: int, pattern: int) -> bytes:
    """An integer of a header block (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([pattern | value])
    rest, value = bytes([pattern | most]), value - most
    while value > 0x7F:
        rest += bytes([value & 0x7F | 0x80])
        value >>= 7
    return rest + bytes([value])
