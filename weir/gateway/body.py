"""Bodies of requests: bounded in bytes, decompressed, parsed.

A body's bytes count in the budget of all bodies until its request is answered. `http_connection`
bounds the time that a body takes.
"""

import asyncio
import json
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request

from weir.client.errors import InvalidArgument, ResourceExhausted
from weir.gateway.errors import Refused

if TYPE_CHECKING:
    from weir.gateway.upstream import Gateway

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# A larger body is decompressed and parsed on a thread.
INLINE_BYTES = 1 << 20
_CHARGED = "weir.body_bytes"
# zlib's `wbits`: with a gzip header, and with a zlib header.
_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class BodyBudget:
    """Bytes of all bodies in memory; used on the event loop only."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0

    def charge(self, scope: Any, size_bytes: int) -> None:
        """Count bytes for a request; ResourceExhausted if there is no room."""
        if self._bytes + size_bytes > self._limit_bytes:
            raise ResourceExhausted(
                f"the gateway: bodies of {self._bytes} bytes are in memory, "
                f"the limit is {self._limit_bytes}",
                retry_after_s=1.0,
            )
        self._bytes += size_bytes
        scope[_CHARGED] = scope.get(_CHARGED, 0) + size_bytes

    def release(self, scope: Any) -> None:
        """Drop what a request has counted."""
        self._bytes -= scope.pop(_CHARGED, 0)

    @property
    def used_bytes(self) -> int:
        """Bytes counted now."""
        return self._bytes


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
    if encoding in _ENCODINGS:
        body = await run(len(body), _decompress, body, encoding, limit_bytes)
        gateway.budget.charge(request.scope, len(body))
    return body


async def read_json(request: Request, gateway: "Gateway") -> dict[str, Any]:
    """The body of a request as a JSON object.

    Raises:
        InvalidArgument: it is none.
        Refused, ResourceExhausted: as `read`.
    """
    body = await read(request, gateway)
    return await run(len(body), json_object, body)


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
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"body: expected JSON: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _check_length(request: Request, limit_bytes: int) -> None:
    """Refuse a body by its announced length, before it is received."""
    length = header(request, b"content-length")
    if length.isdecimal() and int(length) > limit_bytes:
        raise _too_large(limit_bytes, length)


def _too_large(limit_bytes: int, got: object) -> Refused:
    return Refused(413, f"body: expected at most {limit_bytes} bytes (--max-body-bytes), got {got}")


async def _receive(request: Request, gateway: "Gateway", limit_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size_bytes = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size_bytes += len(chunk)
        if size_bytes > limit_bytes:
            raise _too_large(limit_bytes, f"{size_bytes} or more")
        if chunk:
            gateway.budget.charge(request.scope, len(chunk))
            chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks) if len(chunks) != 1 else chunks[0]


def _decompress(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    stream = zlib.decompressobj(_ENCODINGS[encoding])
    try:
        data = stream.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise InvalidArgument(f"body: expected {encoding} data: {error}") from error
    if len(data) > limit_bytes:
        raise _too_large(limit_bytes, f"{len(data)} or more, decompressed")
    if not stream.eof:
        raise InvalidArgument(f"body: expected {encoding} data, got a part of it")
    return data
