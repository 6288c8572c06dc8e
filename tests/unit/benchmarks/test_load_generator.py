"""The generator against a real gRPC server, in this process."""

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import grpc
import numpy as np
import pytest

from benchmarks.lib import load
from benchmarks.lib.http2 import framed, messages
from benchmarks.lib.load_generator import DEADLINE_EXCEEDED, Generator, Schedule

ECHO, REFUSE, COUNT, HANG = (
    f"/test.Service/{method}" for method in ("Echo", "Refuse", "Count", "Hang")
)
HANG_S = 30.0


def _refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")


def _count(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    yield from (b"%d" % number for number in range(int(request)))


def _hang(request: bytes, context: grpc.ServicerContext) -> bytes:
    ended = Event()
    context.add_callback(ended.set)
    ended.wait(HANG_S)
    return request


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
        "Refuse": grpc.unary_unary_rpc_method_handler(_refuse),
        "Hang": grpc.unary_unary_rpc_method_handler(_hang),
        "Count": grpc.unary_stream_rpc_method_handler(_count),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Service", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


BODIES = [framed(b"x" * size) for size in (0, 10, 1000, 60_000)]


@pytest.mark.parametrize("connections", [1, 3])
def test_a_closed_loop_gets_the_answer_to_each_call(target: str, connections: int) -> None:
    order = [0, 1, 2, 3, 2, 1, 0] * 10
    schedule = Schedule(target, ECHO, BODIES, order, in_flight=8, connections=connections)

    record = Generator(schedule).run()

    assert record.answers == [BODIES[each] for each in order]
    assert (record.sent_s <= record.first_s).all() and (record.first_s <= record.ended_s).all()
    assert record.cpu_s > 0


@pytest.mark.parametrize("in_flight", [1, 4])
def test_a_closed_loop_has_no_more_calls_open_than_it_should(target: str, in_flight: int) -> None:
    schedule = Schedule(target, ECHO, BODIES[:1], [0] * 30, in_flight=in_flight)

    record = Generator(schedule).run()

    began, ended = np.sort(record.sent_s), np.sort(record.ended_s)
    assert (began[in_flight:] >= ended[: len(ended) - in_flight]).all()


def test_an_open_loop_sends_when_calls_are_due_and_counts_from_then(target: str) -> None:
    due_s = [0.0, 0.0, 0.01, 0.05]
    schedule = Schedule(target, ECHO, BODIES, [0, 1, 2, 3], due_s=due_s)

    record = Generator(schedule).run()

    assert record.began_s.tolist() == due_s
    assert (record.sent_s >= record.began_s).all()
    assert record.answers == BODIES


def test_refused_calls_end_without_an_answer(target: str) -> None:
    record = Generator(Schedule(target, REFUSE, BODIES, [0, 1], in_flight=2)).run()

    assert record.answers == [b"", b""]
    assert np.isnan(record.first_s).all() and np.isfinite(record.ended_s).all()


def test_streams_are_read_to_their_end(target: str) -> None:
    record = Generator(Schedule(target, COUNT, [framed(b"3"), framed(b"5")], [0, 1])).run()

    assert [len(messages(answer)) for answer in record.answers] == [3, 5]
    assert messages(record.answers[0]) == [b"0", b"1", b"2"]


def test_schedules_and_records_survive_the_way_to_another_process(target: str) -> None:
    schedule = Schedule(target, ECHO, BODIES, [0, 3, 1], due_s=[0.0, 0.01, 0.02], connections=2)

    copied = pickle.loads(pickle.dumps(schedule))  # noqa: S301 - made here
    assert copied == schedule

    record = load.send_open(schedule)

    assert record.answers == Generator(schedule).run().answers
    assert record.began_s.tolist() == schedule.due_s and record.cpu_s > 0
    assert np.isfinite(record.ended_s).all()


@pytest.mark.parametrize(
    ("path", "code"), [(ECHO, grpc.StatusCode.OK), (REFUSE, grpc.StatusCode.RESOURCE_EXHAUSTED)]
)
def test_calls_with_a_deadline_have_a_status(target: str, path: str, code: grpc.StatusCode) -> None:
    schedule = Schedule(target, path, BODIES, [1] * 3, due_s=[0.0] * 3, timeouts_s=[HANG_S] * 3)

    record = Generator(schedule).run()

    assert record.statuses.tolist() == [code.value[0]] * 3


def test_a_call_is_cancelled_when_its_deadline_passes(target: str) -> None:
    schedule = Schedule(
        target, HANG, BODIES, [0, 1], due_s=[0.0, 0.0], timeouts_s=[0.2, 0.1], connections=2
    )

    record = Generator(schedule).run()

    assert record.statuses.tolist() == [DEADLINE_EXCEEDED] * 2
    assert record.ended_s[1] >= 0.1
    assert record.ended_s[0] >= 0.2
