from collections.abc import Callable
from dataclasses import dataclass

import grpc
import pytest

from tests.unit.server.conftest import FakeCall
from weir.protocol import inference_pb2 as pb
from weir.server.errors import ClientTooSlow
from weir.server.protocol.response_encoder import ResponseEncoder
from weir.server.services.inference_stream import InferStream
from weir.server.telemetry.request_record import Reply
from weir.server.transport import base
from weir.server.transport.base import Metadata

WINDOW = 128
OVERLOADED = grpc.StatusCode.RESOURCE_EXHAUSTED


@dataclass
class Admitted:
    """A request of a stream, as far as the fake admission keeps it."""

    request_id: str
    reply: Reply
    send: Callable[[bytes], bool]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True
        self.reply.finish(grpc.StatusCode.CANCELLED, "the caller hung up")

    def answer(self) -> bool:
        message = ResponseEncoder("m", "1", max_bytes=1 << 20).encode(self.request_id, [])
        return self.reply.finish(grpc.StatusCode.OK, message=message)

    def tell(self) -> bool:
        return self.send(ResponseEncoder("m", "1", max_bytes=1 << 20).encode(self.request_id, []))

    def refuse(self) -> None:
        self.reply.finish(OVERLOADED, "full", trailers=(("grpc-retry-pushback-ms", "100"),))


class Stream:
    """A stream whose requests are answered when the test says so."""

    def __init__(self, metadata: Metadata = ()) -> None:
        self.call = FakeCall(metadata)
        self.requests: list[Admitted] = []
        InferStream(self.call, self._admit).start()

    def _admit(
        self,
        payload: bytes,
        reply: Reply,
        time_left_s: float | None,
        admitted: Callable[[Callable[[], None]], None],
        send: Callable[[bytes], bool] | None = None,
    ) -> None:
        assert send is not None
        request = Admitted(pb.ModelInferRequest.FromString(payload).id, reply, send)
        self.requests.append(request)
        admitted(request.cancel)

    def deliver(self, request_id: str) -> Admitted:
        self.call.deliver(pb.ModelInferRequest(id=request_id).SerializeToString())
        return self.requests[-1]

    def answers(self) -> list[pb.ModelStreamInferResponse]:
        return [pb.ModelStreamInferResponse.FromString(message) for message in self.call.sent]


def test_answers_may_overtake_each_other_and_carry_their_ids() -> None:
    stream = Stream()
    first, second = stream.deliver("first"), stream.deliver("second")

    second.answer()
    first.answer()

    assert [answer.infer_response.id for answer in stream.answers()] == ["second", "first"]
    assert all(
        answer.infer_response.parameters["triton_final_response"].bool_param
        for answer in stream.answers()
    )


def test_parts_are_not_final_and_leave_the_request_open() -> None:
    stream = Stream()
    request = stream.deliver("only")

    assert request.tell() and request.tell() and request.answer()

    finals = [
        each.infer_response.parameters["triton_final_response"].bool_param
        for each in stream.answers()
    ]
    assert finals == [False, False, True]


@pytest.mark.parametrize("how", ["answered", "refused", "caller gone"])
def test_no_part_follows_the_last_answer(how: str) -> None:
    """A deadline ends a request on another thread than the one that makes tokens."""
    stream = Stream()
    request = stream.deliver("only")
    if how == "answered":
        request.answer()
    elif how == "refused":
        request.refuse()
    else:
        stream.call.close()
    sent_messages = len(stream.call.sent)

    assert not request.tell()
    assert len(stream.call.sent) == sent_messages


def test_failed_request_gets_its_error_and_the_stream_goes_on() -> None:
    stream = Stream()
    bad, good = stream.deliver("bad"), stream.deliver("good")

    bad.refuse()
    good.answer()

    failure, answer = stream.answers()
    assert (failure.error_message, failure.infer_response.id) == ("full", "bad")
    assert failure.infer_response.parameters["grpc_status"].string_param == "RESOURCE_EXHAUSTED"
    assert answer.error_message == ""
    assert stream.call.code is None
    assert stream.call.is_asked_for_more


def test_failure_has_the_id_of_a_request_that_is_not_parsed() -> None:
    call = FakeCall()
    replies: list[Reply] = []
    InferStream(call, lambda _payload, reply, *_: replies.append(reply)).start()
    call.deliver(pb.ModelInferRequest(id="seven").SerializeToString() + b"\x2a\x01\xff")

    replies[0].finish(grpc.StatusCode.INVALID_ARGUMENT, "no message")

    (answer,) = (pb.ModelStreamInferResponse.FromString(sent) for sent in call.sent)
    assert (answer.infer_response.id, answer.error_message) == ("seven", "no message")


def test_failure_ends_the_stream_of_a_client_that_requests_statuses() -> None:
    stream = Stream(metadata=(("triton_grpc_error", "true"),))
    bad, mate = stream.deliver("bad"), stream.deliver("mate")

    bad.refuse()

    assert (stream.call.code, stream.call.details) == (OVERLOADED, "full")
    assert dict(stream.call.trailers) == {"grpc-retry-pushback-ms": "100"}
    assert mate.is_cancelled
    assert stream.call.sent == []


def test_stream_ends_once_every_answer_is_out() -> None:
    stream = Stream()
    request = stream.deliver("only")
    stream.call.deliver(None)

    assert stream.call.code is None
    request.answer()
    assert stream.call.code is None
    stream.call.confirm()

    assert stream.call.code is grpc.StatusCode.OK


def test_stream_without_requests_ends_at_once() -> None:
    stream = Stream()

    stream.call.deliver(None)

    assert stream.call.code is grpc.StatusCode.OK


def test_client_that_does_not_read_is_not_read_from() -> None:
    stream = Stream()
    for number in range(WINDOW):
        assert stream.call.is_asked_for_more
        stream.deliver(str(number))

    assert not stream.call.is_asked_for_more
    stream.requests[0].answer()
    assert not stream.call.is_asked_for_more
    stream.call.confirm()

    assert stream.call.is_asked_for_more


def test_client_that_leaves_cancels_what_is_open() -> None:
    stream = Stream()
    answered, opened = stream.deliver("answered"), stream.deliver("open")
    answered.answer()

    stream.call.close()

    assert not answered.is_cancelled
    assert opened.is_cancelled


def test_answer_to_a_client_that_is_gone_is_not_sent() -> None:
    stream = Stream()
    request = stream.deliver("late")
    stream.call.cancelled = True

    assert not request.answer()


@pytest.mark.parametrize("value", ["false", "1", ""])
def test_only_true_requests_statuses(value: str) -> None:
    stream = Stream(metadata=(("triton_grpc_error", value),))

    stream.deliver("bad").refuse()

    assert stream.call.code is None
    assert len(stream.call.sent) == 1


def test_unread_parts_of_all_requests_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_UNREAD_MESSAGES", 2)
    stream = Stream()
    first, second = stream.deliver("first"), stream.deliver("second")
    assert first.tell() and second.tell()

    for request in (first, second):
        with pytest.raises(ClientTooSlow):
            request.tell()

    stream.call.confirm()
    assert second.tell() and first.answer()
