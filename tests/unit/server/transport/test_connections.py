import select
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from weir.server.transport.connections import (
    Address,
    Connections,
    address_of,
    default_max_connections,
    metadata_bytes,
    over_limit,
    sockets,
)

LIMIT = 1000
WAIT_S = 10.0


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("ipv6:%5B::1%5D:5000", ("::1", 5000)),
        ("ipv6:[::1]:5000", ("::1", 5000)),
        ("ipv6:[::ffff:10.0.0.1]:5000", ("10.0.0.1", 5000)),
        ("ipv6:[fe80::1%25eth0]:5000", ("fe80::1", 5000)),
        ("unix:/run/weir", None),
        ("unix:", None),
        ("", None),
    ],
)
def test_peer_of_core_is_an_address(peer: str, address: Address | None) -> None:
    assert address_of(peer) == address


def test_size_is_counted_as_http2_counts_it() -> None:
    assert metadata_bytes(b"/a/b", (("key", "value"), ("k-bin", b"\0\1"))) == 4 + 8 + 32 + 7 + 32


@pytest.mark.parametrize("connections", [0, 1, 5])
def test_new_connections_beyond_the_limit_of_a_host_go_and_older_stay(connections: int) -> None:
    kept = {("10.0.0.1", port) for port in range(3)}
    new = {("10.0.0.1", 100 + port) for port in range(connections)}

    over = over_limit(kept, kept | new | {("10.0.0.2", 1)}, limit=4)

    assert len(over) == max(0, connections - 1)
    assert over <= new


class Pair:
    """A connection of this process to itself, through a port."""

    def __init__(self, stack: ExitStack, family: int, host: str) -> None:
        listener = stack.enter_context(socket.create_server((host, 0), family=family))
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self.port: int = listener.getsockname()[1]
        self.client = stack.enter_context(socket.create_connection((host, self.port), WAIT_S))
        self.accepted = stack.enter_context(listener.accept()[0])
        self.accepted.settimeout(WAIT_S)
        kind = "ipv4" if family == socket.AF_INET else "ipv6"
        self.peer = f"{kind}:[{host}]:{self.client.getsockname()[1]}"


def listening_port(stack: ExitStack) -> int:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return int(listener.getsockname()[1])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["4", "6"])
def pair(request: pytest.FixtureRequest, stack: ExitStack) -> Pair:
    family, host = request.param
    try:
        return Pair(stack, family, host)
    except OSError:
        pytest.skip(f"{host} cannot be bound")


def test_attack_by_metadata_ends_its_connection_alone(pair: Pair, stack: ExitStack) -> None:
    other = Pair(stack, socket.AF_INET, "127.0.0.1")
    pair.client.sendall(b"x" * 10_000)
    connections = Connections(LIMIT)
    connections.start(pair.port)

    error = connections.refuse_metadata(pair.peer, 5000)

    assert pair.accepted.recv(1) == b"", "what had been received is thrown away"
    assert "at most 1000 bytes, got 5000" in str(error)
    assert connections.closed == {"metadata": 1}
    other.client.sendall(b"x")
    assert other.accepted.recv(1) == b"x"


def test_metadata_a_little_over_the_limit_leaves_the_connection(pair: Pair) -> None:
    connections = Connections(LIMIT)
    connections.start(pair.port)

    connections.refuse_metadata(pair.peer, LIMIT + 1)

    pair.client.sendall(b"x")
    assert pair.accepted.recv(1) == b"x"
    assert not connections.closed


def test_connections_of_another_port_are_not_touched(pair: Pair) -> None:
    connections = Connections(LIMIT)
    connections.start(pair.port + 1 if pair.port < 65_535 else 1)

    connections.refuse_metadata(pair.peer, 5000)

    pair.client.sendall(b"x")
    assert pair.accepted.recv(1) == b"x"
    assert not connections.closed


def test_end_closes_the_port_and_each_connection_behind_what_was_sent(pair: Pair) -> None:
    connections = Connections(LIMIT)
    connections.start(pair.port)
    pair.accepted.sendall(b"answer")

    connections.end()

    assert pair.client.recv(100) == b"answer" and pair.client.recv(100) == b""
    pair.client.sendall(b"x")
    assert pair.accepted.recv(1) == b"x", "what the client still sends is not refused by a reset"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(pair.address, WAIT_S)


def test_end_leaves_a_connection_that_holds_an_answer_back(pair: Pair) -> None:
    connections = Connections(LIMIT)
    connections.start(pair.port)
    pair.accepted.setblocking(False)
    with suppress(BlockingIOError):
        while pair.accepted.send(bytes(65_536)):
            pass

    connections.end()

    pair.client.settimeout(WAIT_S)
    end_s = time.monotonic() + WAIT_S
    while not select.select([], [pair.accepted], [], 0)[1]:
        assert time.monotonic() < end_s
        pair.client.recv(65_536)
    assert pair.accepted.send(b"the rest") == 8


def test_end_before_a_start_touches_no_socket(pair: Pair, stack: ExitStack) -> None:
    unbound = stack.enter_context(socket.socket())
    unbound.settimeout(WAIT_S)

    Connections(LIMIT).end()

    unbound.connect(("127.0.0.1", listening_port(stack)))
    unbound.sendall(b"x")
    pair.client.sendall(b"x")
    assert pair.accepted.recv(1) == b"x"


def test_end_closes_the_unix_socket_and_its_connections(pair: Pair, stack: ExitStack) -> None:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-"))
    paths = [Path(folder, name) for name in ("ours", "other")]
    listeners = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in paths]
    accepted, clients = [], []
    for path, listener in zip(paths, listeners, strict=True):
        listener.bind(str(path))
        listener.listen()
        clients.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
        clients[-1].settimeout(WAIT_S)
        clients[-1].connect(str(path))
        accepted.append(stack.enter_context(listener.accept()[0]))
    connections = Connections(LIMIT, socket_path=paths[0])
    connections.start(pair.port)
    accepted[0].sendall(b"answer")

    connections.refuse_metadata("unix:", 5000)
    connections.end()

    assert clients[0].recv(100) == b"answer" and clients[0].recv(100) == b""
    assert pair.client.recv(100) == b"" and not connections.closed
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(str(paths[0]))
    clients[1].sendall(b"x")
    assert accepted[1].recv(1) == b"x", "another socket stays"


def test_end_leaves_datagrams_to_a_port_of_the_same_number(pair: Pair, stack: ExitStack) -> None:
    receiver = stack.enter_context(socket.socket(pair.accepted.family, socket.SOCK_DGRAM))
    receiver.settimeout(WAIT_S)
    receiver.bind(pair.address)
    connections = Connections(LIMIT)
    connections.start(pair.port)

    connections.end()

    receiver.sendto(b"x", pair.address)
    assert receiver.recv(1) == b"x"


def test_looking_at_connections_leaves_no_descriptor(pair: Pair) -> None:
    before = set(Path("/dev/fd").iterdir())

    found = []
    for address, connection in sockets(pair.port):
        found.append(address)
        connection.close()

    assert pair.client.getsockname()[:2] in found
    # Other threads of the process open and close files too.
    end_s = time.monotonic() + WAIT_S
    while more := set(Path("/dev/fd").iterdir()) - before:
        assert time.monotonic() < end_s, f"left open: {more}"
        time.sleep(0.01)


def test_newest_connections_of_a_peer_are_closed(stack: ExitStack) -> None:
    first = Pair(stack, socket.AF_INET, "127.0.0.1")
    connections = Connections(LIMIT, limit_by_peer=1)
    stack.callback(connections.stop)
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = listener.getsockname()[1]
    clients = [
        stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT_S)) for _ in range(3)
    ]
    accepted = [stack.enter_context(listener.accept()[0]) for _ in clients]

    connections.start(port)

    # One of the three is kept; which one is not said of those that the first look finds together.
    still_open = accepted
    while len(still_open) > 1:
        readable, _, _ = select.select(still_open, [], [], WAIT_S)
        assert readable, "connections beyond the limit are open"
        assert [connection.recv(1) for connection in readable] == [b""] * len(readable)
        still_open = [connection for connection in still_open if connection not in readable]
    connections.stop()
    assert len(still_open) == 1
    assert select.select(still_open, [], [], 0)[0] == []
    assert connections.closed == {"peer_limit": 2}
    first.client.sendall(b"x")
    assert first.accepted.recv(1) == b"x"


def test_default_limit_leaves_descriptors_free() -> None:
    limit = default_max_connections()

    assert 1 <= limit <= 10_000
