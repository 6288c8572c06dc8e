"""HTTP by hand: requests that no client library would send, and the answers to them."""

import json
import socket
import ssl
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.integration.harness import ANSWER_S


@dataclass(frozen=True, slots=True)
class Answer:
    """One response.

    Attributes:
        code: HTTP code.
        headers: by names in lower case.
        body: as it is.
    """

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class RawClient:
    """A connection to a gateway.

    Args:
        address: HOST:PORT.
        receive_bytes: size of the buffer of the kernel, if not the usual one.
        tls: context of a connection with TLS.
    """

    def __init__(
        self, address: str, receive_bytes: int | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        host, port = address.split(":")
        self.socket = socket.socket()
        self.socket.settimeout(ANSWER_S)
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect((host, int(port)))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes; a peer that has closed is no error, for its answer may have come before."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def reset(self) -> None:
        """Leave without a goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def answer(self) -> Answer:
        """The next response; one without a length lasts to the end."""
        while b"\r\n\r\n" not in self._rest:
            data = self._receive()
            assert data, f"expected an answer, got the end after {self._rest[:200]!r}"
            self._rest += data
        head, _, rest = self._rest.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        assert line.startswith("HTTP/1.1 "), line
        headers = {
            name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)
        }
        wanted = int(headers["content-length"]) if "content-length" in headers else None
        parts, size = [rest], len(rest)
        while wanted is None or size < wanted:
            data = self._receive()
            if not data:
                break
            parts.append(data)
            size += len(data)
        body = b"".join(parts)
        assert wanted is None or len(body) >= wanted, f"{line}: the body has {len(body)} bytes"
        self._rest = b"" if wanted is None else body[wanted:]
        return Answer(int(line.split()[1]), headers, body[:wanted])

    def wait_for_end(self, limit_s: float = ANSWER_S) -> bytes:
        """What comes before the peer closes, which it must do in time."""
        self.socket.settimeout(limit_s)
        received = self._rest
        self._rest = b""
        while True:
            data = self._receive()
            if not data:
                return received
            received += data

    def trickle(self, data: bytes, pause_s: float, limit_s: float = ANSWER_S) -> float:
        """Send byte by byte until the peer answers or closes; returns how long that took."""
        started_s = time.monotonic()
        self.socket.settimeout(pause_s)
        for byte in data:
            try:
                self.socket.send(bytes([byte]))
                received = self.socket.recv(65536)
            except TimeoutError:
                assert time.monotonic() - started_s < limit_s, "the peer waits for ever"
                continue
            except ConnectionError:
                received = b""
            self._rest += received
            self.socket.settimeout(ANSWER_S)
            return time.monotonic() - started_s
        raise AssertionError("the peer took all of it")

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(1 << 20)
        except ConnectionError:
            return b""


def get(path: str, *headers: str) -> bytes:
    """A request without a body."""
    return request("GET", path, *headers)


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A request with a body."""
    return request("POST", path, *headers, f"Content-Length: {len(body)}") + body


def request(method: str, path: str, *headers: str) -> bytes:
    """A request's line and headers."""
    lines = (f"{method} {path} HTTP/1.1", "Host: gateway", *headers, "", "")
    return "\r\n".join(lines).encode("latin-1")


def ask(address: str, data: bytes) -> Answer:
    """The answer to one request on a connection of its own."""
    with RawClient(address) as client:
        client.send(data)
        return client.answer()
