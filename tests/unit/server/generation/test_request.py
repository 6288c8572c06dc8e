"""Requests of an encoder-decoder, from a message to the messages that answer it."""

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from tests.helpers import pairs
from tests.unit.server.conftest import Backend, Clock, FakeCall
from weir.bundle.golden import encode
from weir.protocol import inference_pb2 as pb
from weir.server.errors import InvalidRequest, Unsupported
from weir.server.generation.decoder_batch import Row
from weir.server.generation.encoder_decoder import EncoderDecoderModel
from weir.server.generation.request import GenerationRequest, generation_request
from weir.server.generation.sampling_parameters import SearchParameters
from weir.server.scheduling.request import ReceivedRequest

OK = grpc.StatusCode.OK


@pytest.fixture
def backend(publish_pair: Callable[..., Any], open_backend: Callable[..., Backend]) -> Backend:
    publish_pair()
    return open_backend()


@pytest.fixture
def model(backend: Backend) -> EncoderDecoderModel:
    model = backend.repository.get("pair", "")
    assert isinstance(model, EncoderDecoderModel)
    return model


def message(
    *sources: list[int], outputs: tuple[str, ...] = (), request_id: str = "", **parameters: int
) -> pb.ModelInferRequest:
    """A request of rows, padded with zeros."""
    longest = max(map(len, sources))
    tokens = np.array([[*row, *[0] * (longest - len(row))] for row in sources], "<i8")
    lengths = np.array([len(row) for row in sources], "<i8")
    made = pb.ModelInferRequest(model_name="pair", id=request_id)
    for name, array in (("tokens", tokens), ("lengths", lengths)):
        made.inputs.add(name=name, datatype="INT64", shape=array.shape)
        made.raw_input_contents.append(array.tobytes())
    for name in outputs:
        made.outputs.add(name=name)
    for key, value in parameters.items():
        made.parameters[key].int64_param = value
    return made


class Asked:
    """A decoded request, its call, and the parts that were sent."""

    def __init__(
        self,
        model: EncoderDecoderModel,
        request: pb.ModelInferRequest,
        clock: Clock,
        *,
        is_stream: bool,
    ) -> None:
        self.call = FakeCall()
        self.parts: list[pb.ModelInferResponse] = []
        received = ReceivedRequest(
            payload=request.SerializeToString(),
            reply=self.call,
            arrived_s=clock.now,
            deadline_s=clock.now + 60.0,
            admitted=self.call.on_close,
            send=self._send if is_stream else None,
            clock=clock,
        )
        self.request: GenerationRequest = model.request(request, received)
        self._model = model

    def _send(self, part: bytes) -> bool:
        self.parts.append(pb.ModelInferResponse.FromString(part))
        return True

    def answer(self) -> pb.ModelInferResponse:
        self._model.scheduler.submit(self.request)
        assert self.call.wait_until_finished() is OK, self.call.details
        assert self.call.message is not None
        return pb.ModelInferResponse.FromString(self.call.message)


@pytest.fixture
def ask(model: EncoderDecoderModel, clock: Clock) -> Callable[..., Asked]:
    def ask(*sources: list[int], is_stream: bool = False, **what: Any) -> Asked:
        return Asked(model, message(*sources, **what), clock, is_stream=is_stream)

    return ask


Ask = Callable[..., Asked]


def tensors(response: pb.ModelInferResponse) -> dict[str, list[Any]]:
    dtypes = {"INT64": "<i8", "FP32": "<f4"}
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {
        output.name: np.frombuffer(raw, dtypes[output.datatype]).reshape(output.shape).tolist()
        for output, raw in pairs
    }


def test_rows_are_answered_in_one_message_under_the_id(ask: Ask) -> None:
    response = ask([5, 6, 7], [8], [5, 5], request_id="mine").answer()

    answers = tensors(response)
    assert (response.model_name, response.model_version, response.id) == ("pair", "1", "mine")
    assert list(answers) == ["output_tokens", "output_lengths", "scores"]
    assert answers["output_tokens"] == [[4, 4], [0, 0], [4, 0]]
    assert answers["output_lengths"] == [2, 0, 1]


def test_requested_outputs_are_sent_in_their_order(ask: Ask) -> None:
    response = ask([5, 6, 7], outputs=("scores", "output_tokens")).answer()

    assert list(tensors(response)) == ["scores", "output_tokens"]


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "unary"])
def test_tokens_are_sent_one_by_one_on_a_stream_only(ask: Ask, *, is_stream: bool) -> None:
    asked = ask([5, 6, 7], is_stream=is_stream, request_id="mine")

    answers = tensors(asked.answer())

    told = [tensors(part) for part in asked.parts]
    assert [part["output_tokens"] for part in told] == [[[4]], [[4]]] * is_stream
    assert [part["output_lengths"] for part in told] == [[1], [1]] * is_stream
    assert answers["output_tokens"] == ([[]] if is_stream else [[4, 4]])
    assert answers["output_lengths"] == ([0] if is_stream else [2])
    assert all(part.id == "mine" for part in asked.parts)
    messages = [*asked.parts, pb.ModelInferResponse.FromString(asked.call.message or b"")]
    assert asked.request.response_bytes == sum(each.ByteSize() for each in messages)


@pytest.mark.parametrize(
    ("sources", "parameters"),
    [([[5, 6], [7]], {}), ([[5, 6, 7]], {"beam_width": 2})],
    ids=["two rows", "a beam"],
)
def test_several_rows_and_beams_are_answered_in_one_message(
    ask: Ask, sources: list[list[int]], parameters: dict[str, int]
) -> None:
    asked = ask(*sources, is_stream=True, **parameters)

    answers = tensors(asked.answer())

    assert not asked.parts
    assert sum(answers["output_lengths"]) > 0


def test_parts_hold_the_requested_outputs(ask: Ask) -> None:
    asked = ask([5, 6, 7], is_stream=True, outputs=("scores",))

    asked.answer()

    assert [list(tensors(part)) for part in asked.parts] == [["scores"], ["scores"]]


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ({"beam_width": 5}, "beam_width: expected at most 4, as model 'pair' decodes"),
        ({"outputs": ("logits",)}, "unknown outputs: 'logits'"),
        ({"outputs": ("scores", "scores")}, "named twice"),
        ({"max_tokens": 0}, "'max_tokens'"),
        ({"timeout": -1}, "'timeout'"),
    ],
    ids=["wide beam", "unknown output", "output twice", "no tokens", "timeout"],
)
def test_invalid_parameter_is_named(ask: Ask, what: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ask([5, 6], **what)

    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("sources", "text"),
    [
        ([[4]] * 5, "expected at most 4 rows"),
        ([[4] * 17], "axis 'time': expected 1 to 16, got 17"),
        ([[10]], "'tokens': expected values from 0 to 9, got 10"),
        ([[-1]], "'tokens': expected values from 0 to 9, got -1"),
        ([[5], []], "'lengths': expected lengths from 1 to 1, got 0"),
    ],
    ids=["rows", "length", "token", "negative token", "empty row"],
)
def test_sources_that_break_the_contract_are_refused(
    ask: Ask, sources: list[list[int]], text: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ask(*sources)

    assert text in str(caught.value)


@pytest.mark.parametrize("policy", ["pass", "reject"])
def test_non_finite_numbers_are_refused_if_the_settings_say_so(
    publish_pair: Callable[..., Any],
    open_backend: Callable[..., Backend],
    clock: Clock,
    policy: str,
) -> None:
    goldens = {name: encode(golden) for name, golden in pairs.HEARING_GOLDENS.items()}
    encoder = {"encoder.onnx": pairs.hearing_encoder()}
    publish_pair("hears", contract=pairs.HEARING, **encoder, **goldens)
    model = open_backend(non_finite=policy).repository.get("hears", "")
    assert isinstance(model, EncoderDecoderModel)
    request = pb.ModelInferRequest(model_name="hears")
    request.inputs.add(name="sounds", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([[1, np.nan]], "<f4").tobytes())

    if policy == "pass":
        answer = Asked(model, request, clock, is_stream=False).answer()
        assert tensors(answer)["output_tokens"] == [[4]]
    else:
        with pytest.raises(InvalidRequest, match="'sounds'"):
            Asked(model, request, clock, is_stream=False)


def test_classes_are_refused(model: EncoderDecoderModel, clock: Clock) -> None:
    request = message([5], outputs=("scores",))
    request.outputs[0].parameters["classification"].int64_param = 1

    with pytest.raises(InvalidRequest, match="'scores': there are no classes"):
        Asked(model, request, clock, is_stream=False)


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_shared_memory_is_refused(model: EncoderDecoderModel, clock: Clock, where: str) -> None:
    request = message([5], outputs=("scores",))
    getattr(request, where)[0].parameters["shared_memory_region"].string_param = "x"

    with pytest.raises(Unsupported):
        Asked(model, request, clock, is_stream=False)


@pytest.mark.parametrize(
    ("timeout_us", "seconds"),
    [(0, 60.0), (2_000_000, 2.0), (90_000_000, 60.0)],
    ids=["none", "shorter", "longer"],
)
def test_timeout_shortens_the_deadline(
    ask: Ask, clock: Clock, timeout_us: int, seconds: float
) -> None:
    assert ask([5], timeout=timeout_us).request.deadline_s == clock.now + seconds


def test_client_that_left_is_counted_as_cancelled(ask: Ask, model: EncoderDecoderModel) -> None:
    asked = ask([5, 6])
    asked.call.cancelled = True

    model.scheduler.submit(asked.request)
    model.scheduler.close()
    assert model.scheduler.join(20.0)

    assert not asked.request.is_answered
    assert model.stats.statuses == {"CANCELLED": 1}
    assert model.stats.success.count == 0


def test_failure_is_sent_and_counted(ask: Ask, model: EncoderDecoderModel) -> None:
    asked = ask([5, 6])

    asked.request.fail(InvalidRequest("planned"))

    assert (asked.call.code, asked.call.details) == (grpc.StatusCode.INVALID_ARGUMENT, "planned")
    assert model.stats.statuses == {"INVALID_ARGUMENT": 1}


class EmptyResponse:
    sent_bytes = 0

    def encode(self, _: Sequence[Row]) -> bytes:
        return b""


@pytest.mark.parametrize("ends", ["answer", "fail"])
def test_finished_request_holds_no_call(model: EncoderDecoderModel, ends: str) -> None:
    # Rows and request hold each other: without this, calls would stay open until the collector
    # comes.
    class HeldReply:
        record = None
        caller = None
        cancelled = False

        def finish(self, *_: object, **__: object) -> bool:
            return True

    reply = HeldReply()
    gone = weakref.ref(reply)
    request = generation_request(
        model.scheduler,
        model.stats,
        reply,
        [Row(0, {}, 1, 1, SearchParameters(), 0.0)],
        EmptyResponse(),
        queued_s=0.0,
        deadline_s=1.0,
        request_bytes=0,
        clock=float,
    )
    del reply

    if ends == "answer":
        request.answer(request.inputs)
    else:
        request.fail(Unsupported("no"))

    assert gone() is None


def test_request_is_freed_without_the_collector(ask: Ask) -> None:
    """It holds the model, which would stay in memory after a reload."""
    gc.disable()
    try:
        asked = ask([5, 6, 7], [8], is_stream=True)
        gone = weakref.ref(asked.request)

        del asked

        assert gone() is None
    finally:
        gc.enable()
