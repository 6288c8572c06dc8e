"""Connections that Weir closes by itself: attacks by headers, too many of one peer, a stop.

gRPC core accepts, reads and closes connections, and offers no call that closes one. Its socket is
therefore found among the descriptors of the process by the address of its peer, and is shut down
through a duplicate. Core then reads the end of the connection, as if the client had gone. At the
stop of the server, the port and every connection are ended in the same way.

Thread: `weir-connections`, only with a limit of connections by peer. It reads the list of
descriptors once a second.

Connections to a unix socket have no address of a peer: only the end of the server closes them.
"""

import ipaddress
import logging
import os
import socket
import stat
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from weir.server.errors import MetadataTooLarge
from weir.server.threads import SupervisedThread

logger = logging.getLogger(__name__)

Reason = Literal["metadata", "peer_limit"]
REASONS: tuple[Reason, ...] = ("metadata", "peer_limit")
Address = tuple[str, int]
"""Host and port."""

MAX_CONNECTIONS = 10_000
"""The default's upper bound: so many connections without a call take some 300 MB."""

# An honest client that sends too much is refused with a status; up to here.
_ATTACK = 4
_DESCRIPTORS = "/dev/fd"
_CHECK_S = 1.0
_LOG_S = 1.0
# What a socket holds of an attack is thrown away, up to the largest receive buffer of a system.
_DRAIN_BYTES = 16 * 1024 * 1024
_READ_BYTES = 256 * 1024
# With more of it unsent, core may hold the rest of an answer, which a close would cut off.
_CONGESTED_BYTES = 16 * 1024
# Of a field, as HTTP/2 counts it (RFC 9113, section 6.5.2).
_FIELD_BYTES = 32


class Connections:
    """The connections of a port, and of a unix socket if there is one.

    Args:
        metadata_limit: bytes of a call's metadata.
        limit_by_peer: connections of one address; None is no limit. It counts none of the unix
            socket, whose clients are processes of this server.
        socket_path: of the unix socket.

    Attributes:
        closed: how many were closed here, by reason.
        metadata_limit: bytes of a call's metadata.
    """

    def __init__(
        self,
        metadata_limit: int,
        limit_by_peer: int | None = None,
        socket_path: Path | None = None,
    ) -> None:
        self.closed: Counter[Reason] = Counter()
        self.metadata_limit = metadata_limit
        self._limit = limit_by_peer
        self._port = 0
        self._socket_path = socket_path
        self._logged_s = -_LOG_S
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, port: int) -> None:
        """Begin to count the connections of the port by peer, if there is a limit."""
        self._port = port
        if self._limit is not None:
            self._thread = SupervisedThread(
                target=self._watch, args=(self._limit,), name="weir-connections", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Count no longer."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def end(self) -> None:
        """Close the ports, then the sending side of every connection behind what was sent (FIN).

        A call that crosses this on the wire ends with UNAVAILABLE at its client, since the
        connection is lost. Core's own shutdown would let it in and end it with CANCELLED, which
        clients take for their own doing and do not retry. Before `start` it closes nothing.
        """
        if not self._port:
            return
        names = [self._port] if self._socket_path is None else [self._port, str(self._socket_path)]
        # In this order: a client whose connection is lost connects again at once.
        for found, is_listening in _sockets(*names):
            with found, suppress(OSError):
                if is_listening:
                    found.shutdown(socket.SHUT_RDWR)
        for found, is_listening in _sockets(*names):
            with found, suppress(OSError):
                if not is_listening and _unsent_bytes(found) < _CONGESTED_BYTES:
                    found.shutdown(socket.SHUT_WR)

    def is_attack(self, size_bytes: int) -> bool:
        """Whether no honest client sends so much metadata."""
        return size_bytes > _ATTACK * self.metadata_limit

    def refuse_metadata(self, peer: str, size_bytes: int) -> MetadataTooLarge:
        """The failure of a call whose metadata is over the limit; from any thread.

        Far beyond the limit it is an attack, and its connection is closed. Until a client
        acknowledges the server's settings, core takes 16 MiB of metadata for one call, whatever its
        own limit is, and passes the call on although it has refused it. A table of HTTP/2 makes
        these 16 MiB of a few kilobytes.

        Args:
            peer: the client's address, as core names it.
            size_bytes: of the metadata.
        """
        if self.is_attack(size_bytes):
            address = address_of(peer)
            if address is not None:
                self._close((address,), "metadata", f"bytes={size_bytes}")
        return MetadataTooLarge(
            f"metadata: expected at most {self.metadata_limit} bytes, got {size_bytes}"
        )

    def _close(self, addresses: Iterable[Address], reason: Reason, detail: str) -> None:
        wanted = set(addresses)
        for address, connection in sockets(self._port):
            with connection:
                if address not in wanted:
                    continue
                _end(connection)
            self._count(address, reason, detail)
            wanted.discard(address)
            if not wanted:
                return

    def _count(self, address: Address, reason: Reason, detail: str) -> None:
        with self._lock:
            self.closed[reason] += 1
            now = time.monotonic()
            # An attack must not fill the log.
            if now < self._logged_s + _LOG_S:
                return
            self._logged_s = now
        logger.warning(
            "connection closed reason=%s peer=%s %s closed=%d",
            reason, address[0], detail, self.closed[reason],
        )  # fmt: skip

    def _watch(self, limit: int) -> None:
        kept: set[Address] = set()
        ended: set[Address] = set()
        while not self._stopped.wait(_CHECK_S):
            current = set()
            try:
                for address, connection in sockets(self._port):
                    connection.close()
                    current.add(address)
            except OSError:  # no descriptor is left to list them with: at the next check
                continue
            # Core takes a moment to close those.
            ended &= current
            current -= ended
            kept &= current
            over = over_limit(kept, current, limit)
            kept |= current - over
            ended |= over
            if over:
                self._close(over, "peer_limit", f"limit={limit}")


def over_limit(kept: set[Address], current: set[Address], limit: int) -> set[Address]:
    """The new connections beyond the limit of their host; those that were kept before stay."""
    counts = Counter(host for host, _ in kept)
    over = set()
    for address in sorted(current - kept):
        counts[address[0]] += 1
        if counts[address[0]] > limit:
            over.add(address)
    return over


def metadata_bytes(
    method: Sequence[object], metadata: Iterable[tuple[str, Sequence[object]]]
) -> int:
    """The size of a call's headers, as HTTP/2 counts it."""
    size = len(method)
    for key, value in metadata:
        size += len(key) + len(value) + _FIELD_BYTES
    return size


def address_of(peer: str) -> Address | None:
    """Host and port of a peer as core names it: `ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`."""
    kind, _, address = unquote(peer).partition(":")
    host, _, port = address.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    return _plain(host.strip("[]")), int(port)


def sockets(port: int) -> Iterator[tuple[Address, socket.socket]]:
    """The connections of a local port: the peer's address, and a duplicate to be closed."""
    for found, is_listening in _sockets(port):
        try:
            peer = None if is_listening else found.getpeername()
        except OSError:  # it was reset
            peer = None
        if peer is None:
            found.close()
        else:
            yield (_plain(peer[0]), peer[1]), found


def _sockets(*local_names: int | str) -> Iterator[tuple[socket.socket, bool]]:
    """A duplicate of each socket of a local port or path, and whether it listens."""
    try:
        names = os.listdir(_DESCRIPTORS)  # noqa: PTH208 - names, quickly
    except OSError:  # no descriptor is free; or not on Unix
        return
    for name in names:
        # A descriptor may be closed, or be another's, at any moment; its duplicate stays.
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            duplicate = os.dup(int(name))
            try:
                found = socket.socket(fileno=duplicate)
            except OSError:
                os.close(duplicate)
                raise
            try:
                if found.type != socket.SOCK_STREAM or _local_name(found) not in local_names:
                    found.close()
                    continue
                # Not by the lack of a peer: a connection that was reset has none either.
                is_listening = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            except OSError:
                found.close()
                raise
            yield found, is_listening


def _local_name(found: socket.socket) -> int | str | None:
    """The local port of a TCP socket, the local path of a unix socket."""
    if found.family in (socket.AF_INET, socket.AF_INET6):
        port: int = found.getsockname()[1]
        return port
    if found.family == getattr(socket, "AF_UNIX", None):
        # Bytes are the name of an abstract one, which this server does not listen on.
        path: str | bytes = found.getsockname()
        return path if isinstance(path, str) else None
    return None


def default_max_connections() -> int:
    """The default limit: three quarters of the free descriptors, at most `MAX_CONNECTIONS`.

    The process's own limit of descriptors is raised as far as the system allows.
    """
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource  # noqa: PLC0415 - on Unix only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    free = soft - len(os.listdir(_DESCRIPTORS))  # noqa: PTH208 - names, quickly
    return max(1, min(MAX_CONNECTIONS, 3 * free // 4))


def _plain(host: str) -> str:
    """An address in one spelling: an IPv4 address mapped into IPv6 is the IPv4 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _unsent_bytes(connection: socket.socket) -> int:
    """What the system holds of a connection and its peer has not acknowledged."""
    import fcntl  # noqa: PLC0415 - on Unix only
    import termios  # noqa: PLC0415 - on Unix only

    (unsent,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return int(unsent)


def _end(connection: socket.socket) -> None:
    """Shut a connection down, and throw away what it received and core has not read."""
    with suppress(OSError):
        # The client is told at once (RST) when core closes its descriptor.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
        left = _DRAIN_BYTES
        while left > 0 and (data := connection.recv(_READ_BYTES, socket.MSG_DONTWAIT)):
            left -= len(data)
