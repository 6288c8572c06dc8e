"""`Generate`, from its one message to its result."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.helpers import pairs
from tests.unit.server.conftest import HANG_S, Backend, Clock, FakeCall, parse_pool
from weir.protocol import tasks_pb2 as pb
from weir.server.scheduling.admission import Admission
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.worker_pool import WorkerPool
from weir.server.services.tasks import SERVICE, TasksService
from weir.server.transport import base
from weir.server.transport.base import Stream

OK, INVALID = grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT
ENDLESS = "z"


class Generating:
    """`Generate` on an encoder-decoder that answers one letter less than its text, or endlessly."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self.backend = backend
        self.admission = Admission(
            backend.repository.get,
            backend.metrics,
            parse_pool(clock),
            default_deadline_s=60.0,
            clock=clock,
        )
        self.pool = WorkerPool(1, deadlines=Deadlines(clock), clock=clock)
        self.pool.start()
        handlers = TasksService(self.admission, self.pool).handlers()
        self._handler = handlers[f"/{SERVICE}/Generate"]

    def wait_until_counted(self) -> None:
        """Wait for the count that follows the answer."""
        scheduler = self.backend.repository.get("pair", "").scheduler
        scheduler.close()
        assert scheduler.join(HANG_S)

    def open(self, call: FakeCall | None = None) -> FakeCall:
        assert isinstance(self._handler, Stream)
        call = call or FakeCall()
        self._handler.handle(call)
        return call

    def send(self, text: str, **fields: Any) -> FakeCall:
        call = self.open()
        call.deliver(asked(text, **fields))
        return call


def asked(text: str | pb.Text, **fields: Any) -> bytes:
    given = pb.Text(text=text) if isinstance(text, str) else text
    message = pb.GenerateRequest(**{"model_name": "pair", "text": given, **fields})
    return message.SerializeToString()


def answers(call: FakeCall) -> list[pb.GenerateResponse]:
    return [pb.GenerateResponse.FromString(message) for message in call.sent]


@pytest.fixture
def generating(
    publish_pair: Callable[..., Any], open_backend: Callable[..., Backend], clock: Clock
) -> Iterator[Generating]:
    publish_pair(
        contract=pairs.speaking(pairs.LONG_WINDED),
        **{"encoder.onnx": pairs.long_winded_encoder(), **pairs.VOCABULARIES},
    )
    publish_pair("silent")
    generating = Generating(open_backend(), clock)
    yield generating
    generating.pool.close()
    assert generating.pool.join(HANG_S)


def test_each_token_is_sent_before_the_result(generating: Generating) -> None:
    call = generating.send("ab?", id="mine", attention=True)

    assert call.wait_until_finished() is OK, call.details
    *tokens, last = answers(call)
    (found,) = last.result.hypotheses
    assert [(each.token.token, each.token.text) for each in tokens] == [("A", "A")] * 2
    assert (found.text, list(found.tokens), found.is_complete) == ("AA", ["A"] * 2, True)
    assert (list(last.result.source), list(last.result.unknown)) == (["a", "b", "?"], ["?"])
    assert [list(each.weights) for each in found.attention] == [[4.0, 5.0, 1.0]] * 3
    assert last.result.id == "mine"
    sent_bytes, labels = sum(map(len, call.sent)), {"model": "pair", "version": "1"}
    generating.wait_until_counted()
    registry = generating.backend.registry
    assert registry.get_sample_value("weir_response_bytes_total", labels) == sent_bytes


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"beam": pb.GenerateRequest.Beam(width=3), "n_best": 2}, 2),
        ({"sample": pb.GenerateRequest.Sample(seed=1), "n_best": 4, "max_tokens": 2}, 4),
    ],
    ids=["beam", "samples"],
)
def test_several_hypotheses_are_sent_at_once(
    generating: Generating, fields: dict[str, Any], count: int
) -> None:
    call = generating.send("abc", **fields)

    assert call.wait_until_finished() is OK, call.details
    (only,) = answers(call)
    assert len(only.result.hypotheses) == count


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_best": 2}, "n_best of a greedy search: expected 1, got 2"),
        ({"beam": pb.GenerateRequest.Beam()}, "beam.width: expected 1 or more, got 0"),
        ({"beam": pb.GenerateRequest.Beam(width=5)}, "beam_width: expected at most 4"),
        (
            {"beam": pb.GenerateRequest.Beam(width=2), "n_best": 3},
            "of a beam search: expected 1 to 2",
        ),
        ({"beam": pb.GenerateRequest.Beam(width=2, length_power=-1)}, "beam.length_power"),
        ({"sample": pb.GenerateRequest.Sample(), "n_best": 17}, "of samples: expected 1 to 16"),
        ({"sample": pb.GenerateRequest.Sample(), "n_best": 5}, "results: expected at most 4"),
        ({"sample": pb.GenerateRequest.Sample(temperature=0)}, "sample.temperature"),
        ({"sample": pb.GenerateRequest.Sample(temperature=float("nan"))}, "sample.temperature"),
        ({"sample": pb.GenerateRequest.Sample(seed=2**63)}, "sample.seed"),
        ({"text": pb.Text()}, "expected text or tokens, got neither"),
        ({"text": "a" * 17}, "expected at most 16 tokens, got 17"),
        ({"id": "\n"}, "id: expected printable characters"),
        ({"model_name": "silent"}, "takes no texts"),
        ({"model_name": "pair.encoder"}, "is a single graph: Generate needs"),
    ],
    ids=str,
)
def test_message_out_of_bounds_is_refused(
    generating: Generating, fields: dict[str, Any], message: str
) -> None:
    call = generating.open()
    call.deliver(asked(**{"text": "abc", **fields}))

    assert call.wait_until_finished() is INVALID
    assert message in call.details and not call.sent


def test_time_counts_from_the_message_and_not_from_the_call(
    generating: Generating, clock: Clock
) -> None:
    call = generating.open(FakeCall(time_left_s=5.0))
    clock.advance(30.0)

    call.deliver(asked("ab"))

    assert call.wait_until_finished() is OK, call.details


def test_call_without_a_message_is_refused(generating: Generating) -> None:
    call = generating.open()

    call.deliver(None)

    assert (call.code, call.details) == (INVALID, "expected one message, got none")


def test_client_that_reads_too_slowly_fails_and_frees_its_row(
    generating: Generating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MAX_UNREAD_MESSAGES", 50)

    call = generating.send(ENDLESS)

    assert call.wait_until_finished() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(call.sent) == 50
    assert generating.send("ab").wait_until_finished() is OK
