"""A DNS server for tests: one name, whose addresses change as servers come and go."""

import socket
import struct
import threading
from types import TracebackType
from typing import Self

_HEADER = struct.Struct("!6H")
_A, _IN = 1, 1
_ANSWERS, _NO_SUCH_NAME = 0x8580, 0x8583


class DnsServer:
    """Answers for one name, on a port of 127.0.0.1; it has no other records.

    Args:
        name: the one name.
        ttl_s: of each answer; by default that of Docker's DNS server.

    Attributes:
        addresses: IPv4 addresses of the name; without any, the name does not exist.
        port: where it listens, by UDP.
    """

    def __init__(self, name: str, *, ttl_s: int = 600) -> None:
        self.addresses: list[str] = []
        self._ttl_s = ttl_s
        self._question = b"".join(
            bytes([len(label)]) + label.encode() for label in (*name.split("."), "")
        )
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="dns", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # An empty packet ends the thread.
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        number = _HEADER.unpack_from(query)[0]
        end = _HEADER.size + query[_HEADER.size :].index(b"\0") + 1
        asked = query[_HEADER.size : end]
        kind = struct.unpack_from("!H", query, end)[0]
        addresses = self.addresses if asked.lower() == self._question else []
        records = [
            # The name is a reference to the question.
            struct.pack("!HHHIH", 0xC000 | _HEADER.size, _A, _IN, self._ttl_s, 4)
            + socket.inet_aton(address)
            for address in (addresses if kind == _A else [])
        ]
        flags = _ANSWERS if addresses else _NO_SUCH_NAME
        header = _HEADER.pack(number, flags, 1, len(records), 0, 0)
        return header + query[_HEADER.size : end + 4] + b"".join(records)
