"""A DNS server on loopback that knows one list of IPv4 addresses (RFC 1035)."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_HEADER_BYTES = 12
_A, _INTERNET = 1, 1
_ANSWER, _RECURSION_AVAILABLE, _AUTHORITATIVE = 0x8000, 0x0080, 0x0400
# The name of the question, as a pointer to it.
_SAME_NAME = 0xC000 | _HEADER_BYTES


@dataclass
class NameServer:
    """What every name has as its addresses, and where to ask for it."""

    address: str
    addresses: list[str] = field(default_factory=list)


@contextmanager
def name_server(*addresses: str) -> Iterator[NameServer]:
    """A running name server; its addresses may be changed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        host, port = listening.getsockname()
        server = NameServer(f"{host}:{port}", list(addresses))
        thread = threading.Thread(target=_serve, args=(listening, server))
        thread.start()
        try:
            yield server
        finally:
            # An empty datagram is the end.
            listening.sendto(b"", (host, port))
            thread.join()


def _serve(listening: socket.socket, server: NameServer) -> None:
    while True:
        query, peer = listening.recvfrom(4096)
        if not query:
            return
        listening.sendto(_answer(query, server.addresses), peer)


def _answer(query: bytes, addresses: list[str]) -> bytes:
    question_end = query.index(b"\0", _HEADER_BYTES) + 5
    (kind,) = struct.unpack("!H", query[question_end - 4 : question_end - 2])
    # A name without addresses of another kind: no error.
    found = addresses if kind == _A else []
    flags = _ANSWER | _AUTHORITATIVE | _RECURSION_AVAILABLE
    header = query[:2] + struct.pack("!5H", flags, 1, len(found), 0, 0)
    records = [
        struct.pack("!3HIH", _SAME_NAME, _A, _INTERNET, 0, 4) + socket.inet_aton(address)
        for address in found
    ]
    return header + query[_HEADER_BYTES:question_end] + b"".join(records)
