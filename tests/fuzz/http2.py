"""Part `http2`: raw HTTP/2 against a server, over both transports.

Threads of hostile clients run sessions. Meanwhile a probe on connections of its own must get each
answer, and get it right. At the end of a round the server must come to rest: it is ready, and its
descriptors and memory are near those of before, and no call is open.
"""

import math
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np

from tests.fuzz.findings import Fault, Findings
from tests.fuzz.http2_sessions import INFER, Session, dumps, loads, session
from tests.fuzz.server import FuzzedServer
from tests.helpers.http2_client import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    ConnectionEnded,
    Http2Client,
    framed,
    grpc_headers,
    literals,
)
from tests.integration.harness import Client, arrays, request, tensor
from weir.protocol import inference_pb2 as pb

TRANSPORTS = ("completion-queue", "grpc-server")

_CLIENTS = 8
_ROUND = 150
_SOCKET_S = 2.0
_PROBE_S = 30.0
_PROBE_PAUSE_S = 0.02
_REST_S = 30.0
_MORE_DESCRIPTORS = 4
# The allocator keeps what several header bombs at once have taken; a leak grows past it.
_MORE_BYTES = 300 << 20
_LINES_OF_A_SESSION = 10
_NO_LINGER = struct.pack("ii", 1, 0)


def run(
    findings: Findings,
    number: int,
    folder: Path,
    *,
    seconds: float,
    rounds: float = math.inf,
    transports: Sequence[str] = TRANSPORTS,
    planted: str = "",
    rest_s: float = _REST_S,
    sessions: int = _ROUND,
) -> None:
    """Attack a server of each transport in turn, until the time is over."""
    for position, transport in enumerate(transports):
        end_s = time.monotonic() + seconds / len(transports)
        random_ = random.Random(number * 2 + position)
        with FuzzedServer(folder / transport, planted, _flags(transport)) as server:
            done = 0
            while time.monotonic() < end_s and done < rounds:
                plan = [session(random_) for _ in range(sessions)]
                try:
                    more = attack(server, plan, rest_s)
                except Fault as fault:
                    findings.add(fault, dumps(plan, transport))
                    server.restart()
                    more = ""
                findings.ran(len(plan), more)
                done += 1


def replay(data: bytes, folder: Path) -> None:
    """Run the sessions of a file; raises Fault."""
    plan, transport = loads(data)
    with FuzzedServer(folder, flags=_flags(transport)) as server:
        attack(server, plan, _REST_S)


def _flags(transport: str) -> tuple[str, ...]:
    return (
        *("--transport", transport),
        # A call whose message never comes is open until then.
        *("--default-deadline-s", "2"),
        # Core may miss a reset that arrives together with frames; it notices at its next ping.
        *("--keepalive-time-s", "4", "--keepalive-timeout-s", "4"),
    )


def attack(server: FuzzedServer, plan: Sequence[Session], rest_s: float) -> str:
    """Run sessions beside a probe, and wait for the rest; what the probe saw."""
    probe = _Probe(server.target)
    probe.call()
    probe.close()
    before = _Rest(server)
    lines = server.process.log().count("\n")
    with _probing(server.target) as probed:
        with ThreadPoolExecutor(_CLIENTS) as clients:
            list(clients.map(lambda each: _run_session(server.target, each), plan))
        spent_s = probed()
    _check_rest(server, before, rest_s)
    log = server.process.log()
    if "Traceback" in log:
        raise Fault(f"the log has a traceback:\n{log[log.index('Traceback') :][:1500]}")
    if log.count("\n") > lines + _LINES_OF_A_SESSION * len(plan):
        raise Fault("the log is flooded")
    return (
        f", probe: {len(spent_s)} calls, the slowest {max(spent_s) * 1000:.0f} ms, "
        f"{server.process.memory_bytes() >> 20} MiB at rest"
    )


def _run_session(target: str, one: Session) -> None:
    """Send the chunks of a session; the server may end it at any moment."""
    host, _, port = target.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), _SOCKET_S) as connection:
        for chunk in one.chunks:
            connection.sendall(bytes.fromhex(chunk))
            time.sleep(one.pause_s)
        if one.end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        elif one.end == "half-close":
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.2)
            while connection.recv(65_536):
                pass


class _Probe:
    """An honest client: of grpcio, and of frames that are unusual and allowed."""

    def __init__(self, target: str) -> None:
        self._x = np.arange(4, dtype=np.float32).reshape(1, 4)
        self._request = request("strict", tensor("x", self._x))
        self._client = Client(target, use_local_subchannel_pool=1)
        self._raw = Http2Client(target, timeout_s=_PROBE_S)
        self._calls = 0

    def call(self) -> float:
        """Make a call; the seconds it took. Raises Fault for a wrong answer, or none."""
        began_s = time.monotonic()
        self._calls += 1
        try:
            if self._calls % 2:
                answer = self._client.send(self._request, _PROBE_S).result()
            else:
                answer = self._framed_oddly()
        except grpc.RpcError as error:
            raise Fault(f"the probe got {error.code().name}: {error.details()}") from error
        except (OSError, ConnectionEnded) as error:
            raise Fault(f"the probe's connection: {type(error).__name__}: {error}") from error
        spent_s = time.monotonic() - began_s
        if not np.array_equal(arrays(answer)["y"], 2 * self._x + 1):
            raise Fault("the probe got a wrong answer")
        return spent_s

    def close(self) -> None:
        """Close the connections."""
        self._client.channel.close()
        self._raw.close()

    def _framed_oddly(self) -> pb.ModelInferResponse:
        """The headers and the message in several frames, one of them empty."""
        stream = self._raw.new_stream()
        block, message = literals(grpc_headers(INFER)), framed(self._request.SerializeToString())
        self._raw.send_frame(HEADERS, 0, stream, block[:20])
        self._raw.send_frame(CONTINUATION, 0, stream)
        self._raw.send_frame(CONTINUATION, END_HEADERS, stream, block[20:])
        for part in (message[:1], b"", message[1:7], message[7:]):
            self._raw.send_frame(DATA, 0, stream, part)
        self._raw.send_frame(DATA, END_STREAM, stream)
        answer = self._raw.answer(stream)
        if answer.status != 0:
            raise Fault(f"the probe's odd frames got status {answer.status}, reset {answer.reset}")
        return pb.ModelInferResponse.FromString(answer.messages[0])


@contextmanager
def _probing(target: str) -> Iterator[Callable[[], list[float]]]:
    """Probes until the end; gives a function that ends it and returns the times of the calls."""
    is_over = threading.Event()
    spent_s: list[float] = []
    faults: list[Fault] = []

    def probe() -> None:
        try:
            client = _Probe(target)
        except OSError as error:
            faults.append(Fault(f"the probe cannot connect: {error}"))
            return
        try:
            while not is_over.wait(_PROBE_PAUSE_S) or not spent_s:
                spent_s.append(client.call())
        except Fault as fault:
            faults.append(fault)
        finally:
            client.close()

    thread = threading.Thread(target=probe)
    thread.start()

    def end() -> list[float]:
        is_over.set()
        thread.join()
        if faults:
            raise faults[0]
        return spent_s

    try:
        yield end
    finally:
        is_over.set()
        thread.join()


class _Rest:
    """What a server uses while it has nothing to do."""

    def __init__(self, server: FuzzedServer) -> None:
        # Counted first: a scrape opens a connection.
        self.descriptors = server.process.descriptors()
        self.memory_bytes = server.process.memory_bytes()
        # Of one scrape: a call may end between two.
        counts = {"grpc_server_started_total": 0.0, "grpc_server_handled_total": 0.0}
        for (name, _), value in server.process.scrape().items():
            if name in counts:
                counts[name] += value
        self.open_calls = counts["grpc_server_started_total"] - counts["grpc_server_handled_total"]


def _check_rest(server: FuzzedServer, before: _Rest, rest_s: float) -> None:
    end_s = time.monotonic() + rest_s
    while True:
        if server.has_died():
            raise Fault(
                f"the server ended with {server.process.process.returncode}:\n"
                f"{server.process.log()[-1500:]}"
            )
        problem = _unrest(server, before)
        if not problem:
            return
        if time.monotonic() > end_s:
            raise Fault(problem)
        time.sleep(0.2)


def _unrest(server: FuzzedServer, before: _Rest) -> str:
    """Why the server is not at rest; nothing if it is."""
    now = _Rest(server)
    if now.descriptors > before.descriptors + _MORE_DESCRIPTORS:
        return f"expected {before.descriptors} descriptors, got {now.descriptors}"
    if (more := now.memory_bytes - before.memory_bytes) > _MORE_BYTES:
        return f"{more >> 20} MiB of memory are kept"
    if now.open_calls:
        return f"{now.open_calls:.0f} calls are still open"
    with Client(server.target, use_local_subchannel_pool=1) as client:
        try:
            health = client.health()
        except grpc.RpcError as error:
            return f"health: {error.code().name}"
    return "" if health == "SERVING" else f"health: {health}"
