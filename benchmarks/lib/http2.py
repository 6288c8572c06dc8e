"""HTTP/2 for gRPC calls: bytes to send from calls, events from received bytes. No socket, no clock.

It covers the part of RFC 9113 that one side of a benchmark needs. So a call costs the generator a
tenth of a call through grpcio:

- The headers of every call are the same bytes: literals, without a dynamic table.
- Received headers are not decoded. A gRPC server that rejects a call sends no message, so a call
  with a message was answered, and one without was rejected.
- A caller that wants the status of a call sets `reads_trailers`. The server may then keep no
  dynamic table, so its trailers are literals, which `status_of` and `pushback_s` find.
- The content of a call is known beforehand. It is sent as a whole once the connection's window has
  room for it and the number of open calls is below the server's limit.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_BODY_BYTES = 65_535
"""The initial window of a stream."""

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE = 1, 2, 3, 4
_CANCEL = (8).to_bytes(4, "big")
_LARGEST_WINDOW = 2**31 - 1
_FRAME_BYTES = 16_384
_REFILL_BYTES = 2**24
_HEAD = struct.Struct(">HBBBI")
_STATUS, _PUSHBACK = b"\x0bgrpc-status", b"\x16grpc-retry-pushback-ms"


class Event(NamedTuple):
    """An event of a call: its first bytes (`answer` is None), or its end with all bytes.

    Attributes:
        trailers: the header block that ended the call, undecoded; empty if it was reset.
    """

    stream: int
    answer: bytes | None
    trailers: bytes = b""


class Broken(Exception):
    """The server closed the connection."""


class Connection:
    """The bytes of one connection, both ways; a body has several messages if requests stream."""

    def __init__(
        self, authority: str, path: str, bodies: Sequence[bytes], *, reads_trailers: bool = False
    ) -> None:
        if bodies and (largest := max(map(len, bodies))) > MAX_BODY_BYTES:
            raise ValueError(f"bodies: expected up to {MAX_BODY_BYTES} bytes, got {largest}")
        self._headers = headers(authority, path)
        self._bodies = [_pieces(body) for body in bodies]
        self._sizes = [len(body) for body in bodies]
        self._next_stream = 1
        self._window = MAX_BODY_BYTES
        self._most_open = _LARGEST_WINDOW
        settings = struct.pack(">HIHI", _ENABLE_PUSH, 0, _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW)
        if reads_trailers:
            settings += struct.pack(">HI", _HEADER_TABLE_SIZE, 0)
        self._outgoing = [PREFACE, _frame(_SETTINGS, 0, 0, settings)]
        self._taken = MAX_BODY_BYTES - _LARGEST_WINDOW
        self._refill(_LARGEST_WINDOW - MAX_BODY_BYTES)
        self._held: dict[int, tuple[bytes, int]] = {}
        self._rest = b""
        self._open: dict[int, list[bytes]] = {}

    def call(self, body: int, timeout_s: float | None = None) -> int:
        """Begin a call with one of the bodies; returns its stream number."""
        stream = self._next_stream
        self._next_stream += 2
        block = self._headers
        if timeout_s is not None:
            block += _field("grpc-timeout", f"{max(1, round(timeout_s * 1e6))}u")
        frames = [_frame(_HEADERS, _END_HEADERS, stream, block)]
        frames += [_frame(_DATA, flags, stream, piece) for piece, flags in self._bodies[body]]
        self._held[stream] = (b"".join(frames), self._sizes[body])
        self._open[stream] = []
        return stream

    def cancel(self, stream: int) -> None:
        """Reset an open call; it has no more events."""
        del self._open[stream]
        if self._held.pop(stream, None) is None:
            self._outgoing.append(_frame(_RST_STREAM, 0, stream, _CANCEL))

    def outgoing(self) -> bytes:
        """The bytes that may be sent now; removes them."""
        while self._held and len(self._open) - len(self._held) < self._most_open:
            stream, (frames, size) = next(iter(self._held.items()))
            if size > self._window:
                break
            del self._held[stream]
            self._window -= size
            self._outgoing.append(frames)
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    def received(self, data: bytes) -> list[Event]:
        """The events in received bytes; `Broken` if the server sent GOAWAY."""
        data = self._rest + data
        events: list[Event] = []
        at, end = 0, len(data)
        while end - at >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            after = at + _HEAD.size + (high << 8 | low)
            if after > end:
                break
            self._take(kind, flags, stream & _LARGEST_WINDOW, data[at + _HEAD.size : after], events)
            at = after
        self._rest = data[at:]
        return events

    def _take(
        self, kind: int, flags: int, stream: int, payload: bytes, events: list[Event]
    ) -> None:
        if kind in {_DATA, _HEADERS, _RST_STREAM}:
            self._take_answer(kind, flags, stream, payload, events)
        elif kind == _SETTINGS and not flags & _ACK:
            settings = dict(struct.iter_unpack(">HI", payload))
            # A server counts a call slightly longer than its caller, and rejects one too many.
            allowed = settings.get(_MAX_CONCURRENT_STREAMS, self._most_open)
            self._most_open = allowed - allowed // 8
            self._outgoing.append(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._outgoing.append(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(payload, "big")
        elif kind == _GOAWAY:
            raise Broken(f"the server ended the connection: {payload[8:]!r}")

    def _take_answer(
        self, kind: int, flags: int, stream: int, payload: bytes, events: list[Event]
    ) -> None:
        if kind == _DATA:
            self._taken += len(payload)
            if self._taken >= _REFILL_BYTES:
                self._refill(self._taken)
        parts = self._open.get(stream)
        if parts is None:
            return
        if kind == _DATA:
            if not parts:
                events.append(Event(stream, None))
            parts.append(payload)
        if kind == _RST_STREAM or flags & _END_STREAM:
            del self._open[stream]
            trailers = payload if kind == _HEADERS else b""
            events.append(Event(stream, b"".join(parts), trailers))

    def _refill(self, size: int) -> None:
        self._outgoing.append(_frame(_WINDOW_UPDATE, 0, 0, size.to_bytes(4, "big")))
        self._taken = 0


def headers(authority: str, path: str) -> bytes:
    """The header block of every call (RFC 7541, section 6.2): literals without an index."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(_field(name, value) for name, value in fields.items())


def status_of(trailers: bytes) -> int | None:
    """The gRPC status in trailers without a dynamic table; None if there is none."""
    value = _value(trailers, _STATUS)
    return None if value is None else int(value)


def pushback_s(trailers: bytes) -> float | None:
    """The pause before a retry that trailers without a dynamic table ask for; None if none."""
    value = _value(trailers, _PUSHBACK)
    return None if value is None else int(value) / 1000


def framed(message: bytes) -> bytes:
    """A message framed for gRPC."""
    return struct.pack(">BI", 0, len(message)) + message


def messages(answer: bytes) -> list[bytes]:
    """The messages of an answer."""
    found, at = [], 0
    while at < len(answer):
        (size,) = struct.unpack_from(">I", answer, at + 1)
        found.append(answer[at + 5 : at + 5 + size])
        at += 5 + size
    return found


def _value(block: bytes, name: bytes) -> bytes | None:
    """The value of a literal field without Huffman coding."""
    at = block.find(name)
    if at < 0:
        return None
    start = at + len(name) + 1
    return block[start : start + block[start - 1]]


def _field(name: str, value: str) -> bytes:
    return b"\0" + _text(name.encode()) + _text(value.encode())


def _text(text: bytes) -> bytes:
    if len(text) >= 127:
        raise ValueError(f"expected a text of up to 126 bytes, got {len(text)}")
    return bytes([len(text)]) + text


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 255, kind, flags, stream) + payload


def _pieces(body: bytes) -> list[tuple[bytes, int]]:
    """The DATA frames of a body; the last one ends the stream."""
    starts = range(0, len(body), _FRAME_BYTES)
    return [
        (body[start : start + _FRAME_BYTES], _END_STREAM if start == starts[-1] else 0)
        for start in starts
    ]
