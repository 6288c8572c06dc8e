from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.unit.server.conftest import Clock, FakeCall
from weir.server.telemetry.interceptor import Interceptor, SampleRates
from weir.server.telemetry.request_record import Reply, RequestRecord
from weir.server.transport.base import Call, Stream, Unary

OK, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED
SAMPLED = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),)
NOT_SAMPLED = (("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),)
LOGGED = SampleRates(logged=1.0, traced=None)


class Following:
    """Handlers of a interceptor, what they are called with, and what is told of it."""

    def __init__(self, clock: Clock, rates: SampleRates, draw: float = 0.5) -> None:
        self.told: list[RequestRecord] = []
        self.calls: list[Any] = []
        self.interceptor = Interceptor(self.told.append, rates, clock=clock, draw=lambda: draw)
        handlers: dict[str, Unary | Stream] = {
            "/unary": Unary(lambda call, _: self.calls.append(call)),
            "/broken": Unary(self._break),
            "/stream": Stream(self.calls.append),
            "/many": Stream(self.calls.append),
        }
        self.handlers = self.interceptor.intercept(handlers, except_stream="/many")

    def call(self, method: str = "/unary", call: FakeCall | None = None) -> Any:
        """What a handler gets of a call of four bytes."""
        call = call or FakeCall(method=method)
        handler = self.handlers[method]
        if isinstance(handler, Unary):
            handler.handle(call, b"four")
        else:
            handler.handle(call)
        return self.calls[-1] if self.calls else None

    def _break(self, _call: Call, _payload: bytes) -> None:
        raise ValueError("planned")


@pytest.fixture
def following(clock: Clock) -> Callable[..., Following]:
    return lambda rates=LOGGED, draw=0.5: Following(clock, rates, draw)


def test_a_call_is_told_of_once_it_has_ended(
    following: Callable[..., Following], clock: Clock
) -> None:
    world, inner = following(), FakeCall(method="/unary")
    call = world.call(call=inner)
    clock.now += 0.25
    assert not world.told

    assert call.finish(OK, message=b"answer", trailers=(("key", "value"),))
    assert not call.finish(OK)

    (record,) = world.told
    assert (record.method, record.peer, record.code) == ("/unary", "fake", OK)
    assert (record.request_bytes, record.response_bytes) == (4, 6)
    assert record.ended_s - record.began_s == 0.25
    assert (inner.code, inner.message, inner.trailers) == (OK, b"answer", (("key", "value"),))


def test_a_failure_is_told_by_its_status(following: Callable[..., Following]) -> None:
    world = following()

    world.call().finish(grpc.StatusCode.NOT_FOUND, "no such model")

    assert [record.code.name for record in world.told] == ["NOT_FOUND"]


def test_an_answer_that_nobody_waits_for_is_a_cancelled_request(
    following: Callable[..., Following],
) -> None:
    world, inner = following(), FakeCall()
    call = world.call(call=inner)
    inner.close()

    assert not call.finish(OK, message=b"answer")

    assert [(record.code, record.response_bytes) for record in world.told] == [(CANCELLED, 0)]


def test_a_handler_that_fails_is_told_of(following: Callable[..., Following]) -> None:
    world = following()

    world.call("/broken")

    assert [record.code.name for record in world.told] == ["INTERNAL"]


def test_a_stream_of_one_request_counts_all_it_brings_and_sends(
    following: Callable[..., Following],
) -> None:
    world, inner = following(), FakeCall(method="/stream")
    call = world.call("/stream", inner)
    got: list[bytes | None] = []

    call.receive(got.append)
    inner.deliver(b"question")
    call.send(b"one")
    call.send(b"three")
    call.finish(OK)

    assert got == [b"question"]
    (record,) = world.told
    assert (record.request_bytes, record.response_bytes) == (8, 8)


def test_of_a_stream_of_many_each_request_is_told_of(following: Callable[..., Following]) -> None:
    world, stream = following(), FakeCall(method="/many")
    assert world.call("/many", stream) is stream
    replies: list[Reply] = [FakeCall(), FakeCall()]

    first, second = (world.interceptor.intercept_reply(stream, reply, 7) for reply in replies)
    second.finish(grpc.StatusCode.INVALID_ARGUMENT)
    first.finish(OK, message=b"answer")

    assert [(each.method, each.code.name, each.request_bytes) for each in world.told] == [
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
        "nobody asks", "log of all", "drawn for the log", "not drawn for the log", "traces of all",
        "not drawn for traces", "caller traces", "caller does not", "caller does not, but the log",
    ],
)  # fmt: skip
def test_who_is_followed(
    following: Callable[..., Following],
    rates: SampleRates,
    metadata: tuple[tuple[str, str], ...],
    draw: float,
    expected: tuple[bool, bool] | None,
) -> None:
    world, inner = following(rates, draw), FakeCall(metadata)

    call = world.call(call=inner)

    if expected is None:
        assert call is inner
    else:
        assert (call.record.is_logged, call.record.is_traced) == expected
        assert (call.record.parent is None) == (not metadata)
