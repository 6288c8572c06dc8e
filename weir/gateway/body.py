"""Bodies of requests: bounded in bytes, decompressed, parsed.

A body's bytes count in the budget of all bodies until its request is answered. The objects of a
large JSON text count too. If the budget is used up, requests that are received slowly make room.
`http_connection` bounds the time that a body takes.
"""

import asyncio
import json
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from weir.client.errors import InvalidArgument, ResourceExhausted
from weir.gateway.errors import Refused

if TYPE_CHECKING:
    from weir.gateway.upstream import Gateway

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# What takes more memory, as bytes or as objects, is decompressed and parsed on a thread.
INLINE_BYTES = 1 << 20
# A compressed body is decompressed in steps, each counted before the next: the first one here, the
# others on a thread.
_FIRST_STEP_BYTES = 256 << 10
_STEP_BYTES = 4 << 20
# The objects of a smaller JSON text are not counted.
_SMALL_JSON_BYTES = 16 << 10
# Parsing keeps every other request waiting, and arrays and objects take the longest by far.
MAX_JSON_CONTAINERS = 500_000
# Largest memory of what each of these characters begins or separates, in CPython.
_OBJECT_BYTES = {b"[": 96, b"{": 240, b'"': 36, b",": 40}
# A request that has been received for so long is refused if another needs its room.
_FAIR_S = 5.0
_CHARGED = "weir.body_bytes"
_MAX_DIGITS = 20
# UTF-8 begins a character beyond the first 65,536 with this byte or a larger one.
_FIRST_BYTE_OF_FOUR = 0xF0
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# zlib's `wbits`: with a gzip header, and with a zlib header.
_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class BodyBudget:
    """Bytes of all bodies in memory; used on the event loop only."""

    def __init__(self, limit_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_bytes = limit_bytes
        self._bytes = 0
        self._clock = clock
        # Requests whose bodies are being received, the oldest first.
        self._receiving: dict[int, _Receiving] = {}

    def charge(self, scope: Any, size_bytes: int) -> None:
        """Count bytes for a request.

        Raises:
            ResourceExhausted: there is no room, and none can be made.
        """
        if self._bytes + size_bytes > self.limit_bytes and not self._make_room(scope, size_bytes):
            raise ResourceExhausted(
                f"the gateway: bodies of {self._bytes} bytes are in memory, "
                f"the limit is {self.limit_bytes}",
                retry_after_s=1.0,
            )
        self._bytes += size_bytes
        scope[_CHARGED] = scope.get(_CHARGED, 0) + size_bytes

    def refund(self, scope: Any, size_bytes: int) -> None:
        """Drop a part of what a request has counted."""
        if _CHARGED in scope:
            self._bytes -= size_bytes
            scope[_CHARGED] -= size_bytes

    def release(self, scope: Any) -> None:
        """Drop what a request has counted."""
        self._bytes -= scope.pop(_CHARGED, 0)

    @contextmanager
    def receiving(self, scope: Any) -> Iterator[None]:
        """While a body is received in parts, its request may be refused in favour of others.

        Raises:
            ResourceExhausted: it was.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a body is received by a task")
        entry = self._receiving[id(scope)] = _Receiving(scope, task, self._clock())
        try:
            yield
        except asyncio.CancelledError:
            # The client may have left at the same time.
            if not entry.is_refused or task.uncancel():
                raise
            raise ResourceExhausted(
                "the gateway: this body was received for more than "
                f"{_FAIR_S:g} s while others needed its memory",
                retry_after_s=1.0,
            ) from None
        finally:
            self._receiving.pop(id(scope), None)

    @property
    def used_bytes(self) -> int:
        """Bytes counted now."""
        return self._bytes

    def _make_room(self, scope: Any, size_bytes: int) -> bool:
        """Refuse the requests that have been received longest; whether there is room then."""
        old_s = self._clock() - _FAIR_S
        for key, entry in list(self._receiving.items()):
            if self._bytes + size_bytes <= self.limit_bytes or entry.started_s > old_s:
                break
            if entry.scope is not scope:
                del self._receiving[key]
                self.release(entry.scope)
                entry.is_refused = True
                entry.task.cancel()
        return self._bytes + size_bytes <= self.limit_bytes


@dataclass(slots=True)
class _Receiving:
    scope: Any
    task: asyncio.Task[Any]
    started_s: float
    is_refused: bool = False


def header(request: Request, name: bytes) -> str:
    """A header by its name in lower case, empty without it; several times as fast as Starlette."""
    for key, value in request.scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return ""


async def read(request: Request, gateway: "Gateway") -> bytes:
    """The body of a request, decompressed.

    Raises:
        Refused: it is too large (413), or has another encoding (415).
        InvalidArgument: it is no data of its encoding.
        ResourceExhausted: too many bodies are in memory.
    """
    limit_bytes = gateway.settings.max_body_bytes
    _check_length(request, limit_bytes)
    encoding = header(request, b"content-encoding").strip().lower()
    if encoding not in {"", "identity", *_ENCODINGS}:
        raise Refused(415, f"Content-Encoding: expected gzip or deflate, got {encoding[:64]!r}")
    body = await _receive(request, gateway, limit_bytes)
    return await _decompress(request, gateway, body, encoding) if encoding in _ENCODINGS else body


async def count_json(
    request: Request, gateway: "Gateway", body: bytes, json_length: str | None = None
) -> int:
    """Count the objects of a JSON text in the budget, before it is parsed; returns their bytes.

    Args:
        json_length: bytes of JSON at the start of the body, if others follow it.

    Raises:
        Refused: they are more than any budget has.
        ResourceExhausted: too many bodies are in memory.
    """
    length = len(body)
    if json_length is not None and json_length.isdecimal() and len(json_length) < _MAX_DIGITS:
        length = min(length, int(json_length))
    if length <= _SMALL_JSON_BYTES:
        return 0
    size_bytes = await run(length, json_memory_bytes, memoryview(body)[:length])
    if size_bytes > gateway.budget.limit_bytes:
        raise Refused(413, "body: expected fewer values in JSON; send binary tensors instead")
    gateway.budget.charge(request.scope, size_bytes)
    return size_bytes


async def parse_json(
    request: Request,
    gateway: "Gateway",
    body: bytes,
    parse: Callable[[], Result],
    json_length: str | None = None,
) -> Result:
    """What a function makes of a body with JSON; the objects of the JSON count until it returns.

    Args:
        json_length: as of `count_json`, which has the errors too.
    """
    counted_bytes = await count_json(request, gateway, body, json_length)
    result = await run(max(len(body), counted_bytes), parse)
    gateway.budget.refund(request.scope, counted_bytes)
    return result


def json_memory_bytes(text: memoryview) -> int:
    """An upper bound of the memory that the objects of a JSON text take, and the text's own.

    Raises:
        Refused: it has more arrays and objects than are parsed in a bearable time.
    """
    data = np.frombuffer(text, np.uint8)
    counts = dict.fromkeys(_OBJECT_BYTES, 0)
    character_bytes = 1
    for start in range(0, len(data), INLINE_BYTES):
        piece = data[start : start + INLINE_BYTES]
        for character in counts:
            counts[character] += int(np.count_nonzero(piece == ord(character)))
        # One character beyond the first 65,536 makes all of its string four bytes wide.
        if piece.max() >= _FIRST_BYTE_OF_FOUR or (piece == ord("\\")).any():
            character_bytes = 4
    if (containers := counts[b"["] + counts[b"{"]) > MAX_JSON_CONTAINERS:
        raise Refused(
            413,
            f"body: expected at most {MAX_JSON_CONTAINERS} arrays and objects in JSON, got "
            f"{containers}; send flat or binary tensors instead",
        )
    objects = sum(count * _OBJECT_BYTES[character] for character, count in counts.items())
    return objects + (character_bytes * len(data) if counts[b'"'] else 0)


async def run(
    size_bytes: int,
    function: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **options: Arguments.kwargs,
) -> Result:
    """The result of a function, on a thread if its data is large."""
    if size_bytes > INLINE_BYTES:
        return await asyncio.to_thread(function, *arguments, **options)
    return function(*arguments, **options)


def json_object(body: bytes) -> dict[str, Any]:
    """A JSON object of its bytes; NaN, Infinity and -Infinity are numbers here.

    Raises:
        InvalidArgument: they are none.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Python's parser, slower, takes these; others' clients send them for floats.
        if b"NaN" not in body and b"Infinity" not in body:
            raise InvalidArgument(f"body: expected JSON: {_reason(error)}") from error
        content = _lenient(body)
    if not isinstance(content, dict):
        raise InvalidArgument(f"body: expected a JSON object, got {kind_of(content)}")
    return content


def kind_of(value: object) -> str:
    """JSON's word for the kind of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
    return "an object"


def _lenient(body: bytes) -> Any:
    try:
        # Of bytes, `loads` would take UTF-16 and surrogates too.
        content = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"body: expected JSON: {_reason(error)}") from error
    if _SURROGATE.search(body):
        try:
            orjson.dumps(content)
        except TypeError as error:
            raise InvalidArgument(f"body: expected JSON: {error}") from error
    return content


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _check_length(request: Request, limit_bytes: int) -> None:
    """Refuse a body by its announced length, before it is received."""
    length = header(request, b"content-length")
    if length.isdecimal() and int(length) > limit_bytes:
        raise _too_large(limit_bytes, length)


def _too_large(limit_bytes: int, got: object) -> Refused:
    return Refused(
        413,
        f"body: expected at most {limit_bytes} bytes (--max-body-bytes of weir gateway, "
        f"--max-message-bytes of weir serve), got {got}",
    )


async def _receive(request: Request, gateway: "Gateway", limit_bytes: int) -> bytes:
    chunks: list[bytes] = []
    message = await request.receive()
    size_bytes = _take(message, chunks, request, gateway, limit_bytes)
    if message.get("more_body", False):
        with gateway.budget.receiving(request.scope):
            while message.get("more_body", False):
                message = await request.receive()
                size_bytes += _take(message, chunks, request, gateway, limit_bytes - size_bytes)
    return b"".join(chunks) if len(chunks) != 1 else chunks[0]


def _take(
    message: Message, chunks: list[bytes], request: Request, gateway: "Gateway", left_bytes: int
) -> int:
    """Add a part of a body to its chunks; returns its size."""
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    chunk: bytes = message.get("body", b"")
    if len(chunk) > left_bytes:
        raise _too_large(gateway.settings.max_body_bytes, "more")
    if chunk:
        gateway.budget.charge(request.scope, len(chunk))
        chunks.append(chunk)
    return len(chunk)


async def _decompress(request: Request, gateway: "Gateway", body: bytes, encoding: str) -> bytes:
    """Decompress in steps: what a few bytes become is known only afterwards."""
    limit_bytes = gateway.settings.max_body_bytes
    stream = zlib.decompressobj(_ENCODINGS[encoding])
    chunks: list[bytes] = []
    size_bytes = 0
    data = body
    step_bytes = _FIRST_STEP_BYTES
    while not stream.eof:
        wanted_bytes = min(step_bytes, limit_bytes - size_bytes + 1)
        try:
            chunk = await run(step_bytes, stream.decompress, data, wanted_bytes)
        except zlib.error as error:
            raise InvalidArgument(f"body: expected {encoding} data: {error}") from error
        step_bytes = _STEP_BYTES
        data = stream.unconsumed_tail
        size_bytes += len(chunk)
        if size_bytes > limit_bytes:
            raise _too_large(limit_bytes, "more, decompressed")
        if not chunk and not stream.eof:
            raise InvalidArgument(f"body: expected {encoding} data, got a part of it")
        gateway.budget.charge(request.scope, len(chunk))
        chunks.append(chunk)
    if stream.unused_data:
        raise InvalidArgument(f"body: expected {encoding} data, got other bytes behind it")
    return b"".join(chunks)
