"""One suite over both transports: small handlers in this process, a stock gRPC client."""

import gc
import json
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.helpers.certificates import Authority
from tests.helpers.http2_client import Http2Client, framed
from weir.server.errors import InvalidRequest, Overloaded, PortUnavailable
from weir.server.transport.base import (
    Call,
    Check,
    Handlers,
    Headers,
    Limits,
    Stream,
    Transport,
    Unary,
)
from weir.server.transport.call_stats import CODES
from weir.server.transport.completion_queue import (
    MAX_DELAY_S,
    CompletionQueueCall,
    CompletionQueueTransport,
)
from weir.server.transport.grpc_server import GrpcServerTransport
from weir.server.transport.wakeups import Wakeups

WAIT_S = 30.0
OK = grpc.StatusCode.OK

Serve = Callable[..., "Served"]


def make(transport: str, handlers: Handlers, limits: Limits, port: int = 0) -> Transport:
    return at(transport, f"127.0.0.1:{port}", handlers, limits)


def at(
    transport: str,
    address: str,
    handlers: Handlers,
    limits: Limits,
    checks: Sequence[Check] = (),
    **own: Any,
) -> Transport:
    if transport == "completion-queue":
        return CompletionQueueTransport(address, handlers, limits, Wakeups(), checks, **own)
    return GrpcServerTransport(address, handlers, limits, checks, **own)


@dataclass
class Served:
    """A started transport and a channel to it."""

    transport: Transport
    channel: grpc.Channel

    def unary(self, method: str) -> Any:
        return self.channel.unary_unary(f"/t.Test/{method}")

    def stream(self, method: str) -> Any:
        return self.channel.stream_stream(f"/t.Test/{method}")


@pytest.fixture
def serve(transport: str) -> Iterator[Serve]:
    """Starts a transport with these handlers, by short name."""
    started: list[Served] = []

    def start(
        limits: Limits | None = None, checks: Sequence[Check] = (), **handlers: Unary | Stream
    ) -> Served:
        full = {f"/t.Test/{name}": handler for name, handler in handlers.items()}
        running = at(transport, "127.0.0.1:0", full, limits or Limits(), checks)
        running.start()
        # Without probes the client's window stays what it is, so that a slow reader is one.
        options = [("grpc.max_receive_message_length", -1), ("grpc.http2.bdp_probe", 0)]
        channel = grpc.insecure_channel(f"127.0.0.1:{running.port}", options)
        started.append(Served(running, channel))
        return started[-1]

    yield start
    for served in started:
        served.channel.close()
        served.transport.stop(0.0)


@dataclass
class Held:
    """A handler that keeps its calls open, and what it saw of them."""

    calls: list[Call] = field(default_factory=list)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closes: list[Call] = field(default_factory=list)
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __call__(self, call: Call, _message: bytes = b"") -> None:
        call.on_close(lambda: self._closed(call))
        self.calls.append(call)
        self.arrived.release()

    def _closed(self, call: Call) -> None:
        self.closes.append(call)
        self.closed.release()

    def next_call(self) -> Call:
        assert self.arrived.acquire(timeout=WAIT_S)
        return self.calls[-1]

    def next_close(self) -> Call:
        assert self.closed.acquire(timeout=WAIT_S)
        return self.closes[-1]


def echo(call: Call, message: bytes) -> None:
    call.finish(OK, message=message)


def echo_stream(call: Call) -> None:
    def received(message: bytes | None) -> None:
        if message is None:
            call.finish(OK)
            return
        call.send(message)
        call.receive(received)

    call.receive(received)


def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ended, its messages thrown away."""
    return call.code(), call.details()


# Unary calls


@pytest.mark.parametrize("message", [b"", b"x", b"y" * 1_000_000], ids=["empty", "one", "large"])
def test_unary_call_is_answered(serve: Serve, message: bytes) -> None:
    served = serve(Echo=Unary(echo))

    assert served.unary("Echo")(message, timeout=WAIT_S) == message


def test_failed_call_is_retried_by_the_clients_own_policy(serve: Serve) -> None:
    # A client retries only while no part of an answer has arrived.
    statuses = iter([grpc.StatusCode.UNAVAILABLE, OK])

    def fail_once(call: Call, message: bytes) -> None:
        code = next(statuses)
        call.finish(code, "again", message=message if code is OK else None)

    policy = {
        "maxAttempts": 2,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.01s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}
    port = serve(FailOnce=Unary(fail_once)).transport.port

    options = [("grpc.service_config", json.dumps(config))]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        call: Any = channel.unary_unary("/t.Test/FailOnce")
        assert call(b"x", timeout=WAIT_S) == b"x"


def test_answer_may_come_from_any_thread(serve: Serve) -> None:
    def later(call: Call, message: bytes) -> None:
        threading.Thread(target=echo, args=(call, message)).start()

    served = serve(Later=Unary(later))

    assert served.unary("Later")(b"x", timeout=WAIT_S) == b"x"


def test_concurrent_calls_get_their_own_answers(serve: Serve) -> None:
    with ThreadPoolExecutor(4) as workers:
        served = serve(
            Echo=Unary(lambda call, message: _ignore(workers.submit(echo, call, message)))
        )
        futures = [
            served.unary("Echo").future(b"%d" % number, timeout=WAIT_S) for number in range(300)
        ]
        answers = [future.result() for future in futures]

    assert answers == [b"%d" % number for number in range(300)]


def _ignore(_value: object) -> None:
    pass


def test_handler_sees_method_peer_and_metadata(serve: Serve) -> None:
    held = Held()
    served = serve(Held=Unary(held))
    future = served.unary("Held").future(
        b"", timeout=WAIT_S, metadata=(("key", "value"), ("key", "again"), ("raw-bin", b"\x00\xff"))
    )

    call = held.next_call()

    assert call.method == "/t.Test/Held"
    assert call.peer.startswith("ipv4:127.0.0.1:")
    assert {("key", "value"), ("key", "again"), ("raw-bin", b"\x00\xff")} <= set(call.metadata)
    call.finish(OK, message=b"")
    assert future.result() == b""


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_status_details_and_trailers_arrive(serve: Serve, kind: str) -> None:
    def refuse(call: Call, _message: bytes = b"") -> None:
        call.finish(
            grpc.StatusCode.FAILED_PRECONDITION,
            "not today: größer als 5",
            trailers=(("retry", "7"), ("raw-bin", b"\x00\xff")),
        )

    served = serve(Unary=Unary(refuse), Stream=Stream(refuse))
    if kind == "unary":
        call = served.unary("Unary").future(b"", timeout=WAIT_S)
    else:
        call = served.stream("Stream")(iter(()), timeout=WAIT_S)

    assert status_of(call) == (grpc.StatusCode.FAILED_PRECONDITION, "not today: größer als 5")
    assert {("retry", "7"), ("raw-bin", b"\x00\xff")} <= set(call.trailing_metadata())


def test_trailers_come_with_an_answer_too(serve: Serve) -> None:
    served = serve(
        Echo=Unary(
            lambda call, message: _ignore(call.finish(OK, message=message, trailers=(("a", "b"),)))
        )
    )
    future = served.unary("Echo").future(b"x", timeout=WAIT_S)

    assert future.result() == b"x"
    assert ("a", "b") in set(future.trailing_metadata())


def test_unknown_method_is_unimplemented(serve: Serve) -> None:
    served = serve(Echo=Unary(echo))

    assert served.unary("Nothing").future(b"", timeout=WAIT_S).code() is (
        grpc.StatusCode.UNIMPLEMENTED
    )
    assert served.unary("Echo")(b"x", timeout=WAIT_S) == b"x"


def test_unary_call_without_a_message_is_refused(serve: Serve) -> None:
    served = serve(Echo=Unary(echo))
    method: Any = served.channel.stream_unary("/t.Test/Echo")

    code = method.future(iter(()), timeout=WAIT_S).code()

    # grpcio's own server says UNIMPLEMENTED here.
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
    assert served.unary("Echo")(b"x", timeout=WAIT_S) == b"x"


@pytest.mark.parametrize("kind", ["unary", "stream", "unknown"])
def test_call_is_refused_by_its_headers_before_its_message_comes(serve: Serve, kind: str) -> None:
    seen: list[str] = []

    def check(headers: Headers) -> None:
        seen.append(headers.method)
        if ("turn", "away") in headers.metadata:
            raise Overloaded("away")

    served = serve(checks=[check], Unary=Unary(echo), Stream=Stream(echo_stream))
    sending = threading.Event()

    def messages() -> Iterator[bytes]:
        sending.wait(WAIT_S)
        yield b"x"

    method: Any = served.channel.stream_unary(f"/t.Test/{kind.title()}")
    call = method.future(messages(), metadata=(("turn", "away"),), timeout=WAIT_S)

    assert status_of(call) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "away")
    assert ("grpc-retry-pushback-ms", "100") in tuple(call.trailing_metadata())
    assert seen == [f"/t.Test/{kind.title()}"]
    sending.set()
    assert served.unary("Unary")(b"x", timeout=WAIT_S) == b"x"


def test_call_that_a_check_refuses_counts_as_open(serve: Serve) -> None:
    """Until its client has read the status; the bound holds for it too."""

    def check(headers: Headers) -> None:
        if headers.method.endswith("Refused"):
            raise InvalidRequest("never")

    held = Held()
    served = serve(Limits(open_calls=1), [check], Held=Unary(held), Refused=Unary(echo))
    refused = served.unary("Refused").future(b"", timeout=WAIT_S)
    assert status_of(refused) == (grpc.StatusCode.INVALID_ARGUMENT, "never")
    wait_for_counts(served.transport, "Refused", InvalidArgument=1)
    call = served.unary("Held").future(b"", timeout=WAIT_S)
    assert held.arrived.acquire(timeout=WAIT_S)

    refused = served.unary("Refused").future(b"", timeout=WAIT_S)

    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    wait_for_counts(served.transport, "Refused", InvalidArgument=1, ResourceExhausted=1)
    call.cancel()


# Streams


def test_stream_answers_in_order(serve: Serve) -> None:
    served = serve(Echo=Stream(echo_stream))
    messages = [b"%d" % number for number in range(500)]

    assert list(served.stream("Echo")(iter(messages), timeout=WAIT_S)) == messages


def test_stream_is_a_conversation(serve: Serve) -> None:
    served = serve(Echo=Stream(echo_stream))
    answered = threading.Semaphore(1)

    def one_at_a_time() -> Iterator[bytes]:
        for number in range(20):
            assert answered.acquire(timeout=WAIT_S)
            yield b"%d" % number

    call = served.stream("Echo")(one_at_a_time(), timeout=WAIT_S)
    answers = []
    for answer in call:
        answers.append(answer)
        answered.release()

    assert answers == [b"%d" % number for number in range(20)]
    assert call.code() is OK


def test_messages_sent_before_the_status_all_arrive(serve: Serve) -> None:
    def burst(call: Call) -> None:
        for number in range(100):
            call.send(b"%d" % number)
        call.finish(grpc.StatusCode.ABORTED, "that was all", trailers=(("a", "b"),))

    call = serve(Burst=Stream(burst)).stream("Burst")(iter(()), timeout=WAIT_S)
    received: list[bytes] = []
    with pytest.raises(grpc.RpcError):
        received.extend(call)

    assert received == [b"%d" % number for number in range(100)]
    assert status_of(call) == (grpc.StatusCode.ABORTED, "that was all")


def test_each_sent_message_calls_back(serve: Serve) -> None:
    sent_numbers: list[int] = []

    def chain(call: Call) -> None:
        def send(number: int) -> None:
            def sent() -> None:
                sent_numbers.append(number)
                send(number + 1)

            if number == 50:
                call.finish(OK)
            else:
                call.send(b"%d" % number, sent)

        send(0)

    answers = list(serve(Chain=Stream(chain)).stream("Chain")(iter(()), timeout=WAIT_S))

    assert answers == [b"%d" % number for number in range(50)]
    assert sent_numbers == list(range(50))


def test_stream_handler_receives_none_when_the_client_is_done(serve: Serve) -> None:
    counts: list[int] = []

    def count(call: Call) -> None:
        def received(message: bytes | None) -> None:
            if message is None:
                call.send(b"%d" % len(counts))
                call.finish(OK)
                return
            counts.append(len(message))
            call.receive(received)

        call.receive(received)

    call = serve(Count=Stream(count)).stream("Count")(iter([b"a", b"", b"ccc"]), timeout=WAIT_S)

    assert list(call) == [b"3"]
    assert counts == [1, 0, 3]


def test_slow_reader_bounds_what_is_sent(serve: Serve) -> None:
    total, message = 1000, b"z" * 65_536
    sent = []

    def flood(call: Call) -> None:
        def send() -> None:
            sent.append(1)
            if len(sent) == total:
                call.finish(OK)
            else:
                call.send(message, send)

        call.send(message, send)

    served = serve(Flood=Stream(flood), Echo=Unary(echo))
    call = served.stream("Flood")(iter(()), timeout=WAIT_S)
    next(call)
    # While the stream is not read, others are served; 64 MiB wait in the handler, not in core.
    for _ in range(200):
        served.unary("Echo")(b"x", timeout=WAIT_S)
    sent_early = len(sent)
    received = 1 + sum(1 for _ in call)

    assert sent_early < total // 10
    assert received == total


# Deadlines and cancellation


def test_default_deadline_runs_from_the_headers_on(serve: Serve) -> None:
    held = Held()
    served = serve(Unary=Unary(held))
    paused_s = 0.5
    with Http2Client(f"127.0.0.1:{served.transport.port}", timeout_s=WAIT_S) as client:
        stream = client.call("/t.Test/Unary")
        wait_for_counts(served.transport, "Unary", started=1)
        time.sleep(paused_s)
        client.send_data(stream, framed(b""), ends=True)

        left_s = held.next_call().time_left_s()

    assert left_s is not None and left_s < Limits().default_deadline_s - paused_s / 2


@pytest.mark.parametrize("row", ["D11"])
@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_time_left_is_not_that_of_the_wall_clock(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, *, jump_s: int, row: str
) -> None:
    held = Held()
    served = serve(Unary=Unary(held))
    call = served.unary("Unary").future(b"", timeout=1000.0)
    open_call = held.next_call()
    now = time.time

    monkeypatch.setattr(time, "time", lambda: now() + jump_s)
    left_s = open_call.time_left_s()

    assert left_s is not None and 900 < left_s < 1100
    open_call.finish(OK, message=b"")
    assert call.result() == b""


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_handler_sees_the_time_left(serve: Serve, kind: str) -> None:
    held = Held()
    served = serve(Unary=Unary(held), Stream=Stream(held))

    def start(timeout: float | None) -> Any:
        if kind == "unary":
            return served.unary("Unary").future(b"", timeout=timeout)
        return served.stream("Stream")(iter(()), timeout=timeout)

    limited = start(1000.0)
    left_s = held.next_call().time_left_s()
    unlimited = start(None)
    default_left_s = held.next_call().time_left_s()

    # On the wire long timeouts are rounded up, by a hundredth.
    assert left_s is not None and 900 < left_s < 1100
    if kind == "unary":
        assert default_left_s is not None and 0 < default_left_s < 60
    else:
        assert default_left_s is None
    limited.cancel()
    unlimited.cancel()


@pytest.mark.parametrize("kind", ["unary", "stream"])
@pytest.mark.parametrize("cause", ["deadline", "cancellation"])
def test_close_fires_once(serve: Serve, kind: str, cause: str) -> None:
    held = Held()
    served = serve(Unary=Unary(held), Stream=Stream(held), Echo=Unary(echo))
    timeout = 1.0 if cause == "deadline" else WAIT_S
    if kind == "unary":
        started = served.unary("Unary").future(b"", timeout=timeout)
    else:
        started = served.stream("Stream")(iter(()), timeout=timeout)
    call = held.next_call()
    if cause == "cancellation":
        started.cancel()

    assert held.next_close() is call
    assert call.cancelled
    assert not call.finish(OK, message=b"too late")
    late: list[str] = []
    call.on_close(lambda: late.append("at once"))
    assert late == ["at once"]
    assert served.unary("Echo")(b"x", timeout=WAIT_S) == b"x"
    served.transport.stop(WAIT_S)
    assert len(held.closes) == 1
    if cause == "deadline":
        assert started.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_vanished_channel_closes_its_calls(serve: Serve) -> None:
    held = Held()
    served = serve(Held=Unary(held))
    calls = [served.unary("Held").future(b"", timeout=WAIT_S) for _ in range(5)]
    for _ in calls:
        held.next_call()

    served.channel.close()

    for _ in calls:
        held.next_close()
    assert len({id(call) for call in held.closes}) == 5


def test_receive_ends_when_the_client_is_gone(serve: Serve) -> None:
    messages: list[bytes | None] = []
    heard = threading.Semaphore(0)

    def listen(call: Call) -> None:
        def received(message: bytes | None) -> None:
            messages.append(message)
            if message is not None:
                call.receive(received)
            heard.release()

        call.receive(received)

    gate = threading.Event()

    def one_then_wait() -> Iterator[bytes]:
        yield b"first"
        gate.wait(WAIT_S)

    call = serve(Listen=Stream(listen)).stream("Listen")(one_then_wait(), timeout=WAIT_S)
    assert heard.acquire(timeout=WAIT_S)
    call.cancel()

    assert heard.acquire(timeout=WAIT_S)
    assert messages == [b"first", None]
    gate.set()


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_close_does_not_fire_after_the_end(serve: Serve, kind: str) -> None:
    closes: list[str] = []

    def end(call: Call, message: bytes = b"") -> None:
        call.on_close(lambda: closes.append(call.method))
        call.finish(OK, message=message if kind == "unary" else None)

    served = serve(Unary=Unary(end), Stream=Stream(end))
    if kind == "unary":
        served.unary("Unary")(b"x", timeout=WAIT_S)
    else:
        assert list(served.stream("Stream")(iter(()), timeout=WAIT_S)) == []
    served.channel.close()
    served.transport.stop(WAIT_S)

    assert closes == []


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_call_is_finished_once(serve: Serve, kind: str) -> None:
    held = Held()
    served = serve(Unary=Unary(held), Stream=Stream(held))
    if kind == "unary":
        started = served.unary("Unary").future(b"", timeout=WAIT_S)
    else:
        started = served.stream("Stream")(iter(()), timeout=WAIT_S)
    call = held.next_call()
    start = threading.Barrier(8)

    def finish(number: int) -> bool:
        start.wait(WAIT_S)
        return call.finish(grpc.StatusCode.ABORTED, f"by {number}")

    with ThreadPoolExecutor(8) as racers:
        won = list(racers.map(finish, range(8)))

    assert sum(won) == 1
    assert started.details() == f"by {won.index(True)}"
    assert not call.finish(OK, message=b"again")


# Limits


def test_message_over_the_limit_is_refused_unseen(serve: Serve) -> None:
    held = Held()
    served = serve(Limits(message_bytes=10_000), Held=Unary(held), Echo=Unary(echo))

    code = served.unary("Held").future(b"x" * 10_001, timeout=WAIT_S).code()

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not held.calls
    assert served.unary("Echo")(b"x" * 10_000, timeout=WAIT_S) == b"x" * 10_000


def test_answer_over_the_limit_is_refused(serve: Serve) -> None:
    def blow_up(call: Call, message: bytes) -> None:
        call.finish(OK, message=message * 20_000)

    served = serve(Limits(message_bytes=10_000), Blow=Unary(blow_up), Echo=Unary(echo))

    code = served.unary("Blow").future(b"x", timeout=WAIT_S).code()

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert served.unary("Echo")(b"x", timeout=WAIT_S) == b"x"


def test_stream_message_over_the_limit_ends_the_stream(serve: Serve) -> None:
    served = serve(Limits(message_bytes=10_000), Echo=Stream(echo_stream))

    answered = threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"x"
        answered.wait(WAIT_S)
        yield b"y" * 10_001

    call = served.stream("Echo")(messages(), timeout=WAIT_S)

    assert next(call) == b"x"
    answered.set()
    assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_over_the_limit_is_refused(serve: Serve) -> None:
    served = serve(Limits(metadata_bytes=4096), Echo=Unary(echo))

    future = served.unary("Echo").future(b"x", timeout=WAIT_S, metadata=(("long", "v" * 20_000),))

    assert future.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert served.unary("Echo")(b"x", timeout=WAIT_S) == b"x"


# Handlers that fail


@pytest.mark.parametrize("kind", ["unary", "stream", "received"])
def test_raising_handler_is_internal_without_its_text(
    serve: Serve, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("a secret")

    served = serve(
        unary=Unary(fail),
        stream=Stream(fail),
        received=Stream(lambda call: call.receive(fail)),
        Echo=Unary(echo),
    )
    if kind == "unary":
        started = served.unary(kind).future(b"", timeout=WAIT_S)
    else:
        started = served.stream(kind)(iter([b"x"]), timeout=WAIT_S)

    code, details = status_of(started)
    assert code is grpc.StatusCode.INTERNAL
    assert re.fullmatch(r"internal error [0-9a-f]{12}", details)
    assert "a secret" in caplog.text
    assert served.unary("Echo")(b"x", timeout=WAIT_S) == b"x"


# Start and stop


def test_graceful_stop_lets_open_calls_finish(serve: Serve) -> None:
    held = Held()
    served = serve(Unary=Unary(held))
    unary = served.unary("Unary").future(b"", timeout=WAIT_S)
    call = held.next_call()
    stopping = threading.Thread(target=served.transport.stop, args=(10 * WAIT_S,))
    stopping.start()
    refused = _first_refusal(served)

    call.finish(OK, message=b"done")
    stopping.join(2 * WAIT_S)

    assert unary.result() == b"done"
    assert not stopping.is_alive(), "the stop waits no longer than for its calls"
    assert refused is grpc.StatusCode.UNAVAILABLE
    assert not held.closes


def test_stop_ends_streams_after_what_they_have_sent(serve: Serve) -> None:
    held = Held()
    served = serve(Stream=Stream(held))
    stream = served.stream("Stream")(iter(()), timeout=WAIT_S)
    call = held.next_call()
    for number in range(20):
        call.send(b"%d" % number)
    received: list[bytes] = []

    def read() -> None:
        with pytest.raises(grpc.RpcError):
            received.extend(stream)

    reading = threading.Thread(target=read)
    reading.start()
    stopping = threading.Thread(target=served.transport.stop, args=(10 * WAIT_S,))
    stopping.start()
    stopping.join(2 * WAIT_S)
    reading.join(WAIT_S)

    assert not stopping.is_alive()
    assert received == [b"%d" % number for number in range(20)]
    assert status_of(stream) == (grpc.StatusCode.UNAVAILABLE, "the server is stopping")


@pytest.mark.parametrize("row", ["F17"])
def test_stop_ends_no_call_with_cancelled(serve: Serve, row: str) -> None:
    """Core's own shutdown ends about one call in five so, of those that cross it on the wire."""
    codes: set[grpc.StatusCode] = set()
    for _ in range(8):
        served = serve(Echo=Unary(echo))
        codes |= _ends_of_calls(served, f"127.0.0.1:{served.transport.port}")

    assert codes == {grpc.StatusCode.UNAVAILABLE}


def _ends_of_calls(served: Served, target: str) -> set[grpc.StatusCode]:
    """Stop a transport while eight clients call it, each until its first failure; the failures."""
    codes: set[grpc.StatusCode] = set()
    answered = threading.Semaphore(0)

    def call_to_the_end() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(target, options) as channel:
            echo_call: Any = channel.unary_unary("/t.Test/Echo")
            while (code := echo_call.future(b"x", timeout=WAIT_S).code()) is OK:
                answered.release()
            codes.add(code)

    callers = [threading.Thread(target=call_to_the_end) for _ in range(8)]
    for caller in callers:
        caller.start()
    for _ in range(200):
        assert answered.acquire(timeout=WAIT_S)
    assert served.transport.stop(WAIT_S)
    for caller in callers:
        caller.join()
    return codes


def _first_refusal(served: Served) -> grpc.StatusCode:
    """Call until the transport, which is being stopped in another thread, takes no more calls."""
    while True:
        code: grpc.StatusCode = served.unary("Nothing").future(b"", timeout=WAIT_S).code()
        if code is not grpc.StatusCode.UNIMPLEMENTED:
            return code


def test_stop_cancels_what_is_open_after_the_grace(serve: Serve) -> None:
    held = Held()
    served = serve(Unary=Unary(held))
    started = served.unary("Unary").future(b"", timeout=WAIT_S)
    call = held.next_call()

    served.transport.stop(0.1)

    assert held.next_close() is call
    assert started.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_ended_call_is_freed_without_the_garbage_collector(serve: Serve) -> None:
    # Calls that kept themselves alive until a collection once cost a tenth of the server's CPU.
    served = serve(Echo=Unary(echo))
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            served.unary("Echo")(b"x", timeout=WAIT_S)

        end_s = time.monotonic() + WAIT_S
        while any(type(thing) is CompletionQueueCall for thing in gc.get_objects()):
            assert time.monotonic() < end_s, "calls outlive their end"
            time.sleep(0.01)
    finally:
        gc.enable()


def test_port_in_use_is_refused(transport: str, serve: Serve) -> None:
    port = serve(Echo=Unary(echo)).transport.port

    with pytest.raises(PortUnavailable, match=str(port)):
        make(transport, {}, Limits(), port)


# The unix socket


@contextmanager
def on_socket(
    transport: str,
    path: Path,
    limits: Limits | None = None,
    checks: Sequence[Check] = (),
    credentials: grpc.ServerCredentials | None = None,
    **handlers: Unary | Stream,
) -> Iterator[Served]:
    """A started transport with a unix socket, and a channel to that."""
    full = {f"/t.Test/{name}": handler for name, handler in handlers.items()}
    own = {"socket_path": path, "credentials": credentials}
    started = at(transport, "127.0.0.1:0", full, limits or Limits(), checks, **own)
    started.start()
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"unix:{path}", options) as channel:
        yield Served(started, channel)
    started.stop(0.0)


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="weir-") as folder:
        yield Path(folder) / "grpc"


def test_unix_socket_serves_beside_the_port(transport: str, socket_path: Path) -> None:
    peers: list[str] = []

    def tell(call: Call, message: bytes) -> None:
        peers.append(call.peer)
        call.finish(OK, message=message)

    with on_socket(transport, socket_path, Tell=Unary(tell), Stream=Stream(echo_stream)) as served:
        assert served.unary("Tell")(b"x", timeout=WAIT_S) == b"x"
        assert list(served.stream("Stream")(iter([b"1", b"2"]), timeout=WAIT_S)) == [b"1", b"2"]
        with grpc.insecure_channel(f"127.0.0.1:{served.transport.port}") as channel:
            tcp: Any = channel.unary_unary("/t.Test/Tell")
            assert tcp(b"y", timeout=WAIT_S) == b"y"

    assert peers[0] == "unix:" and peers[1].startswith("ipv4:127.0.0.1:")
    assert not socket_path.exists(), "core removes what it made"


def test_unix_socket_is_plaintext_where_the_port_has_tls(
    transport: str, socket_path: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("localhost")
    chain = (certificate.key.read_bytes(), certificate.cert.read_bytes())
    credentials = grpc.ssl_server_credentials(
        [chain], authority.ca.read_bytes(), require_client_auth=True
    )

    with on_socket(transport, socket_path, credentials=credentials, Echo=Unary(echo)) as served:
        assert served.unary("Echo")(b"x", timeout=WAIT_S) == b"x"
        with grpc.insecure_channel(f"127.0.0.1:{served.transport.port}") as channel:
            plaintext: Any = channel.unary_unary("/t.Test/Echo")
            code = plaintext.future(b"y", timeout=WAIT_S).code()

    assert code is grpc.StatusCode.UNAVAILABLE


def test_checks_and_limits_hold_on_the_unix_socket(transport: str, socket_path: Path) -> None:
    def check(headers: Headers) -> None:
        if headers.method == "/t.Test/Refused":
            raise Overloaded("not now")

    limits = Limits(message_bytes=4096, metadata_bytes=4096)
    large = (("key", "x" * 40_000),)
    with on_socket(
        transport, socket_path, limits, [check], Echo=Unary(echo), Refused=Unary(echo)
    ) as served:
        refused = status_of(served.unary("Refused").future(b"", timeout=WAIT_S))
        message = status_of(served.unary("Echo").future(b"x" * 5000, timeout=WAIT_S))
        metadata = status_of(served.unary("Echo").future(b"", timeout=WAIT_S, metadata=large))
        answer = served.unary("Echo")(b"x", timeout=WAIT_S)

    assert refused == (grpc.StatusCode.RESOURCE_EXHAUSTED, "not now")
    assert message[0] is metadata[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answer == b"x", "the connection of all HTTP callers stays"


@pytest.mark.parametrize("row", ["F17"])
def test_stop_ends_no_call_of_the_unix_socket_with_cancelled(
    transport: str, socket_path: Path, row: str
) -> None:
    codes: set[grpc.StatusCode] = set()
    for _ in range(8):
        with on_socket(transport, socket_path, Echo=Unary(echo)) as served:
            codes |= _ends_of_calls(served, f"unix:{socket_path}")

    assert codes == {grpc.StatusCode.UNAVAILABLE}


def test_socket_that_cannot_be_bound_is_refused(transport: str, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "grpc"

    with pytest.raises(PortUnavailable, match=f"cannot listen on unix:{path}"):
        at(transport, "127.0.0.1:0", {}, Limits(), socket_path=path)


# What is counted


def counted(transport: Transport, method: str) -> tuple[int, dict[str, int]]:
    """How many calls of a method arrived, and how they ended."""
    calls = transport.calls.of(f"/t.Test/{method}")
    handled = dict(zip(CODES, calls.handled, strict=True))
    return calls.started, {code: count for code, count in handled.items() if count}


def wait_for_counts(
    transport: Transport, method: str, *, started: int | None = None, **ended: int
) -> None:
    """Wait for these counts: the server counts a call just after the client has its answer."""
    end_s = time.monotonic() + WAIT_S
    expected = (sum(ended.values()) if started is None else started, ended)
    seconds = transport.calls.of(f"/t.Test/{method}").seconds
    while (found := counted(transport, method)) != expected or sum(seconds.counts) != sum(
        ended.values()
    ):
        assert time.monotonic() < end_s, f"{method}: expected {ended}, got {found}"
        time.sleep(0.002)


def refuse(call: Call, _message: bytes) -> None:
    call.finish(grpc.StatusCode.INVALID_ARGUMENT, "no")


def test_every_call_is_counted_by_its_status(serve: Serve) -> None:
    served = serve(Echo=Unary(echo), Refuse=Unary(refuse), Stream=Stream(echo_stream))

    for _ in range(20):
        served.unary("Echo")(b"x", timeout=WAIT_S)
        served.unary("Refuse").future(b"x", timeout=WAIT_S).code()
    assert list(served.stream("Stream")(iter([b"a", b"b"]), timeout=WAIT_S)) == [b"a", b"b"]
    for number in range(3):
        served.unary(f"Nothing{number}").future(b"", timeout=WAIT_S).code()

    wait_for_counts(served.transport, "Echo", OK=20)
    wait_for_counts(served.transport, "Refuse", InvalidArgument=20)
    wait_for_counts(served.transport, "Stream", OK=1)
    wait_for_counts(served.transport, "no such method", Unimplemented=3)


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_open_call_is_started_and_not_handled(serve: Serve, kind: str) -> None:
    held = Held()
    served = serve(Unary=Unary(held), Stream=Stream(held))
    started = (
        served.unary("Unary").future(b"", timeout=WAIT_S)
        if kind == "unary"
        else served.stream("Stream")(iter(()), timeout=WAIT_S)
    )
    call = held.next_call()

    open_then = counted(served.transport, kind.title())
    call.finish(grpc.StatusCode.NOT_FOUND, "no")

    assert started.code() is grpc.StatusCode.NOT_FOUND
    assert open_then == (1, {})
    wait_for_counts(served.transport, kind.title(), NotFound=1)


@pytest.mark.parametrize("kind", ["unary", "stream"])
@pytest.mark.parametrize(
    ("cause", "code"), [("deadline", "DeadlineExceeded"), ("cancellation", "Cancelled")]
)
def test_closed_call_is_counted_as_late_or_cancelled(
    serve: Serve, kind: str, cause: str, code: str
) -> None:
    held = Held()
    served = serve(Unary=Unary(held), Stream=Stream(held))
    # No stock client: it gives a call up at the deadline, and a busy server may hear of it late.
    with Http2Client(f"127.0.0.1:{served.transport.port}", timeout_s=WAIT_S) as client:
        limit = "1S" if cause == "deadline" else "1H"
        stream = client.call(f"/t.Test/{kind.title()}", b"", grpc_timeout=limit)
        held.next_call()
        if cause == "cancellation":
            client.reset(stream)
        held.next_close()

        wait_for_counts(served.transport, kind.title(), **{code: 1})


def test_kinds_of_methods_are_counted_apart(serve: Serve) -> None:
    served = serve(
        Echo=Unary(echo),
        Both=Stream(echo_stream),
        Watch=Stream(echo_stream, kind="server_stream"),
    )

    kinds = {calls.method: calls.kind for calls in served.transport.calls.all()}

    assert kinds == {
        "Echo": "unary",
        "Both": "bidi_stream",
        "Watch": "server_stream",
        "unknown": "unary",
    }


@pytest.fixture
def held_io() -> Iterator[tuple[Held, CompletionQueueTransport, grpc.Channel]]:
    """The fast transport with one call open."""
    held = Held()
    handlers: Handlers = {"/t.Test/Hold": Unary(held)}
    transport = CompletionQueueTransport("127.0.0.1:0", handlers, Limits(), Wakeups())
    transport.start()
    with grpc.insecure_channel(f"127.0.0.1:{transport.port}") as channel:
        yield held, transport, channel
    transport.stop(0.0)


def test_delay_is_measured_while_a_call_is_open(
    held_io: tuple[Held, CompletionQueueTransport, grpc.Channel],
) -> None:
    held, transport, channel = held_io
    idle_s = transport.io.delay_s()
    method: Any = channel.unary_unary("/t.Test/Hold")
    future = method.future(b"", timeout=WAIT_S)
    call = held.next_call()

    delays_s = [transport.io.delay_s() for _ in range(100)]
    call.finish(OK, message=b"")
    future.result()
    transport.stop(WAIT_S)

    assert idle_s == 0.0
    assert min(delays_s) > 0.0 and max(delays_s) <= MAX_DELAY_S
    assert not transport.io.open_calls, "an ended call is kept"


def test_delay_is_measured_on_an_older_call_when_the_newest_has_ended(
    held_io: tuple[Held, CompletionQueueTransport, grpc.Channel],
) -> None:
    held, transport, channel = held_io
    method: Any = channel.unary_unary("/t.Test/Hold")
    older = method.future(b"", timeout=WAIT_S)
    held.next_call()
    newer = method.future(b"", timeout=WAIT_S)
    held.next_call().finish(OK, message=b"")
    newer.result()
    wait_for_counts(transport, "Hold", started=2, OK=1)

    delay_s = transport.io.delay_s()

    assert delay_s > 0.0
    older.cancel()


def test_delay_of_a_thread_that_does_not_come_is_bounded() -> None:
    entered, let_go = threading.Event(), threading.Event()

    def block(call: Call, message: bytes) -> None:
        entered.set()
        assert let_go.wait(WAIT_S)
        echo(call, message)

    transport = CompletionQueueTransport(
        "127.0.0.1:0", {"/t.Test/Block": Unary(block)}, Limits(), Wakeups()
    )
    transport.start()
    with grpc.insecure_channel(f"127.0.0.1:{transport.port}") as channel:
        method: Any = channel.unary_unary("/t.Test/Block")
        future = method.future(b"", timeout=WAIT_S)
        assert entered.wait(WAIT_S)
        delay_s = transport.io.delay_s()
        busy_s = transport.io.busy_s
        let_go.set()
        future.result()
    transport.stop(WAIT_S)

    assert delay_s == MAX_DELAY_S
    # The time in the handler counts as busy once it is over.
    assert transport.io.busy_s - busy_s >= MAX_DELAY_S


SETTINGS, PING, GOAWAY = 4, 6, 7
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def http2_frame(kind: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + payload


def ping(port: int, pings: int, pause_s: float) -> Iterator[tuple[int, bytes]]:
    """The frames that answer so many pings on a connection without calls."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection,
        connection.makefile("rb") as answers,
    ):
        connection.sendall(PREFACE + http2_frame(SETTINGS))
        for number in range(pings):
            time.sleep(pause_s)
            connection.sendall(http2_frame(PING, number.to_bytes(8, "big")))
            while header := answers.read(9):
                kind, payload = header[3], answers.read(int.from_bytes(header[:3], "big"))
                yield kind, payload
                if kind in (PING, GOAWAY):
                    break
            if not header or kind == GOAWAY:
                return


def test_pings_at_the_permitted_interval_are_answered(serve: Serve) -> None:
    # A pause is never shorter than this, whatever the machine does.
    port = serve(Limits(ping_interval_s=0.05), Echo=Unary(echo)).transport.port

    frames = list(ping(port, 10, pause_s=0.06))

    assert [int.from_bytes(payload, "big") for kind, payload in frames if kind == PING] == [
        *range(10)
    ]


def test_more_pings_than_permitted_close_the_connection(serve: Serve) -> None:
    port = serve(Limits(ping_interval_s=60.0), Echo=Unary(echo)).transport.port

    frames = list(ping(port, 10, pause_s=0.0))

    assert frames[-1][0] == GOAWAY and b"too_many_pings" in frames[-1][1]


def test_keepalive_of_10_s_is_permitted_by_default() -> None:
    arguments = dict(Limits().channel_arguments())

    assert arguments["grpc.http2.min_ping_interval_without_data_ms"] < 10_000
    assert arguments["grpc.keepalive_permit_without_calls"] == 1


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.1:0", "Cannot assign requested address"),
        ("no.such.host.invalid:0", "[Nn]ame|[Aa]ddress"),
    ],
)
def test_address_that_cannot_be_bound_is_refused_with_the_reason(
    transport: str, address: str, reason: str
) -> None:
    with pytest.raises(PortUnavailable, match=f"cannot listen on {address}: .*({reason})"):
        at(transport, address, {}, Limits())
