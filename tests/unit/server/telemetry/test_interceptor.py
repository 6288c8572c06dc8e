import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import grpc
import pytest

from tests.unit.server.conftest import HANG_S, Clock, FakeCall
from weir.server.telemetry import interceptor
from weir.server.telemetry.interceptor import Interceptor, SampleRates
from weir.server.telemetry.request_record import Reply, RequestRecord
from weir.server.transport.base import Call, Stream, Unary

OK, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED
SAMPLED = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),)
NOT_SAMPLED = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),)
LOGGED = SampleRates(logged=1.0, traced=None)


class World:
    """Intercepted handlers, the calls they receive, and the exported records."""

    def __init__(self, clock: Clock, rates: SampleRates, draw: float = 0.5) -> None:
        self.exported: list[RequestRecord] = []
        self.calls: list[Any] = []
        self.interceptor = Interceptor(self.exported.append, rates, clock=clock, draw=lambda: draw)
        handlers: dict[str, Unary | Stream] = {
            "/unary": Unary(lambda call, _: self.calls.append(call)),
            "/broken": Unary(self._break),
            "/stream": Stream(self.calls.append, kind="server_stream"),
            "/many": Stream(self.calls.append),
        }
        self.handlers = self.interceptor.intercept(handlers, except_stream="/many")

    def call(self, method: str = "/unary", call: FakeCall | None = None) -> Any:
        """Call a handler with four bytes; the call that it receives."""
        call = call or FakeCall(method=method)
        handler = self.handlers[method]
        if isinstance(handler, Unary):
            handler.handle(call, b"four")
        else:
            handler.handle(call)
        return self.calls[-1] if self.calls else None

    def receiving_stream(self) -> tuple[FakeCall, Any, list[bytes | None]]:
        """Call the stream, which waits for its message: the call, as received, its messages."""
        inner, got = FakeCall(method="/stream"), list[bytes | None]()
        call = self.call("/stream", inner)
        call.receive(got.append)
        return inner, call, got

    def _break(self, _call: Call, _payload: bytes) -> None:
        raise ValueError("planned")


@pytest.fixture
def open_world(clock: Clock) -> Callable[..., World]:
    return lambda rates=LOGGED, draw=0.5: World(clock, rates, draw)


def test_record_is_exported_once_the_call_has_ended(
    open_world: Callable[..., World], clock: Clock
) -> None:
    world, inner = open_world(), FakeCall(method="/unary")
    call = world.call(call=inner)
    clock.now += 0.25
    assert not world.exported

    assert call.finish(OK, message=b"answer", trailers=(("key", "value"),))
    assert not call.finish(OK)

    (record,) = world.exported
    assert (record.method, record.peer, record.code) == ("/unary", "fake", OK)
    assert (record.request_bytes, record.response_bytes) == (4, 6)
    assert record.ended_s - record.began_s == 0.25
    assert (inner.code, inner.message, inner.trailers) == (OK, b"answer", (("key", "value"),))


def test_failure_is_recorded_with_its_status(open_world: Callable[..., World]) -> None:
    world = open_world()

    world.call().finish(grpc.StatusCode.NOT_FOUND, "no such model")

    assert [record.code.name for record in world.exported] == ["NOT_FOUND"]


def test_answer_after_the_client_left_is_a_cancelled_request(
    open_world: Callable[..., World],
) -> None:
    world, inner = open_world(), FakeCall()
    call = world.call(call=inner)
    inner.close()

    assert not call.finish(OK, message=b"answer")

    assert [(record.code, record.response_bytes) for record in world.exported] == [(CANCELLED, 0)]


def test_handler_that_raises_is_recorded(open_world: Callable[..., World]) -> None:
    world = open_world()

    world.call("/broken")

    assert [record.code.name for record in world.exported] == ["INTERNAL"]


def test_stream_of_one_request_counts_all_its_bytes(
    open_world: Callable[..., World],
) -> None:
    world = open_world()
    inner, call, got = world.receiving_stream()

    inner.deliver(b"question")
    call.send(b"one")
    call.send(b"three")
    call.finish(OK)

    assert got == [b"question"]
    (record,) = world.exported
    assert (record.request_bytes, record.response_bytes) == (8, 8)


def test_stream_whose_message_never_came_leaves_no_record(
    open_world: Callable[..., World],
) -> None:
    world = open_world()
    inner, call, got = world.receiving_stream()

    inner.deliver(None)
    assert call.finish(grpc.StatusCode.INVALID_ARGUMENT)

    assert got == [None]
    assert inner.code is grpc.StatusCode.INVALID_ARGUMENT
    assert not world.exported


def test_kinds_of_the_handlers_stay(open_world: Callable[..., World]) -> None:
    """A server stream taken for a bidirectional one could wait for its message for ever."""
    kinds = {name: handler.kind for name, handler in open_world().handlers.items()}

    assert kinds == {
        "/unary": "unary",
        "/broken": "unary",
        "/stream": "server_stream",
        "/many": "bidi_stream",
    }


def test_each_request_of_a_stream_is_recorded(open_world: Callable[..., World]) -> None:
    world, stream = open_world(), FakeCall(method="/many")
    assert world.call("/many", stream) is stream
    replies: list[Reply] = [FakeCall(), FakeCall()]

    first, second = (world.interceptor.intercept_reply(stream, reply, 7) for reply in replies)
    second.finish(grpc.StatusCode.INVALID_ARGUMENT)
    first.finish(OK, message=b"answer")

    assert [(each.method, each.code.name, each.request_bytes) for each in world.exported] == [
        ("/many", "INVALID_ARGUMENT", 7),
        ("/many", "OK", 7),
    ]


@pytest.mark.parametrize(
    ("rates", "metadata", "draw", "expected"),
    [
        (SampleRates(0.0, None), SAMPLED, 0.0, None),
        (SampleRates(1.0, None), SAMPLED, 0.99, (True, False)),
        (SampleRates(0.5, None), (), 0.49, (True, False)),
        (SampleRates(0.5, None), (), 0.5, None),
        (SampleRates(0.0, 1.0), (), 0.99, (False, True)),
        (SampleRates(0.0, 0.1), (), 0.1, None),
        (SampleRates(0.0, 0.0), SAMPLED, 0.5, (False, True)),
        (SampleRates(0.0, 1.0), NOT_SAMPLED, 0.0, None),
        (SampleRates(1.0, 1.0), NOT_SAMPLED, 0.0, (True, False)),
    ],
    ids=[
        "nothing configured", "log of all", "drawn for the log", "not drawn for the log",
        "traces of all",
        "not drawn for traces", "caller traces", "caller does not", "caller does not, but the log",
    ],
)  # fmt: skip
def test_requests_are_selected_by_rate_and_traceparent(
    open_world: Callable[..., World],
    rates: SampleRates,
    metadata: tuple[tuple[str, str], ...],
    draw: float,
    expected: tuple[bool, bool] | None,
) -> None:
    world, inner = open_world(rates, draw), FakeCall(metadata)

    call = world.call(call=inner)

    if expected is None:
        assert call is inner
    else:
        assert (call.record.is_logged, call.record.is_traced) == expected
        assert (call.record.parent is None) == (not metadata)


def test_two_threads_that_finish_a_call_export_it_once(open_world: Callable[..., World]) -> None:
    """Each thread pauses at every instruction: both are between the check and the change."""
    world = open_world()
    call, start = world.call(), threading.Barrier(2)

    def pause(frame: FrameType, _event: str, _argument: object) -> Any:
        if frame.f_code.co_filename == interceptor.__file__:
            frame.f_trace_opcodes = True
            time.sleep(0.001)
            return pause
        return None

    def finish(code: grpc.StatusCode) -> None:
        start.wait(HANG_S)
        sys.settrace(pause)
        call.finish(code)

    threads = [threading.Thread(target=finish, args=(code,)) for code in (OK, CANCELLED)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)

    assert len(world.exported) == 1
