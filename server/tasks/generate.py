"""From one `GenerateRequest` to its stream of answers: a text in, tokens as they come, and all of it at the end.

The model is found, and refused, before anything waits. Then the text is read on a thread of `decoding`, and its row takes
the same way through the engine as those of a `ModelInfer`.
"""

from collections.abc import Sequence
from functools import partial

import grpc

from weir.protocol import tasks_pb2 as pb
from weir.server.errors import DeadlineExceeded, InvalidRequest
from weir.server.generation.request import PairRequest
from weir.server.generation.row import Row
from weir.server.generation.sampling import Answer
from weir.server.generation.served import ServedPair, check_search
from weir.server.generation.wanted import search_of
from weir.server.preprocessing.detokenizer import DetokenizerStream
from weir.server.preprocessing.tokenizer import TokenizedText, Tokenizer
from weir.server.protocol import message_limits
from weir.server.protocol.request_decoder import check_id, parse_message
from weir.server.scheduling.admission import Admission
from weir.server.scheduling.deadlines import IdleTimeout
from weir.server.scheduling.worker_pool import WorkerPool
from weir.server.tasks.task_call import Arrived, Material, begin
from weir.server.tasks.text import read
from weir.server.telemetry.request_record import RequestRecord
from weir.server.transport.backpressure import BoundedSender
from weir.server.transport.base import Call, Metadata


def generate(
    call: Call, admission: Admission, decoding: WorkerPool, idle_timeout: IdleTimeout
) -> None:
    """Wait for the one message of a `Generate` call. Runs on the transport's thread."""
    opened_s = admission.clock()

    def received(payload: bytes | None) -> None:
        if payload is None:
            call.finish(grpc.StatusCode.INVALID_ARGUMENT, "expected one message, got none")
        else:
            _start(call, payload, admission, decoding)

    def late() -> None:
        error = DeadlineExceeded(
            f"expected one message, none came within {idle_timeout.limit_s:g} s"
        )
        admission.refuse(error, call, None, opened_s, 0)

    idle_timeout.receive(call, received, late)


def _start(call: Call, payload: bytes, admission: Admission, decoding: WorkerPool) -> None:
    """Check a message as far as that is cheap, and queue it to be read."""

    def find(name: str, version: str) -> ServedPair:
        model = admission.find(name, version)
        if not isinstance(model, ServedPair):
            raise InvalidRequest(
                f"model {name!r} makes no sequences of sequences: its bundle is one graph"
            )
        return model

    # Only now: a caller may take its time between call and message, and what is left to it is asked for in there.
    begin(call, payload, admission, decoding, find=find, check=_check, make=_request)


def _check(model: ServedPair) -> None:
    _reader(model)


def _reader(model: ServedPair) -> Tokenizer:
    if model.tokenizer is None:
        raise InvalidRequest(
            f"model {model.name!r} takes no texts: its bundle says nothing of how to read them "
            "(tokenisation)"
        )
    return model.tokenizer


def _request(arrived: Arrived, material: Material[ServedPair]) -> PairRequest:
    """Unpack, check, and read the text."""
    call, model, reader = arrived.call, material.model, _reader(material.model)
    message_limits.check_texts(material.payload)
    message = parse_message(pb.GenerateRequest, material.payload)
    check_id(message.id)
    search = search_of(message)
    check_search(search, model)
    reading = read(message.text, reader)
    inputs = reader.rows([reading])
    model.rules.complete(inputs)
    model.rules.check(inputs)
    (row,) = model.pair.rows(inputs, search, arrived_s=arrived.arrived_s)
    row.attends = message.attention
    if search.slots == 1:
        row.told = _Told(call, model, row)
    return PairRequest(
        model,
        _StreamEnd(call),
        sources=[row],
        encode=partial(_encode, model, message.id, reading),
        queued_s=material.clock(),
        deadline_s=arrived.deadline_s,
        request_bytes=len(material.payload),
        clock=material.clock,
    )


class _Told:
    """Sends each token as it is chosen."""

    def __init__(self, call: Call, model: ServedPair, row: Row) -> None:
        self._call = call
        self._row = row
        self._sender = BoundedSender(call)
        self._detokenizer = model.detokenizer
        self._stream = DetokenizerStream(model.detokenizer)

    def __call__(self, token: int, log_probability: float, /) -> None:
        if self._call.cancelled:
            return
        message = pb.GenerateResponse()
        message.token.token = self._detokenizer.token(token)
        message.token.text = self._stream.add(token)
        message.token.log_probability = log_probability
        payload = message.SerializeToString()
        self._row.sent_bytes += len(payload)
        self._sender.send(payload)


class _StreamEnd:
    """A call whose answer is the last message of a stream; see `pending.Reply`."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def record(self) -> RequestRecord | None:
        """What is noted of the call."""
        record: RequestRecord | None = self._call.record
        return record

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any longer."""
        return self._call.cancelled

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """Send the result, or a status alone; False if nobody waits."""
        if message is None:
            return self._call.finish(code, details, trailers=trailers)
        if self._call.cancelled:
            return self._call.finish(grpc.StatusCode.CANCELLED)
        self._call.send(message)
        # A caller that has the result need not wait for the status.
        self._call.finish(code, details, trailers=trailers)
        return True


def _encode(
    model: ServedPair, request_id: str, reading: TokenizedText, rows: Sequence[Row]
) -> bytes:
    """The last message of a stream."""
    message = pb.GenerateResponse()
    result = message.result
    result.model_name, result.model_version, result.id = model.name, model.version, request_id
    result.source.extend(reading.tokens)
    result.unknown.extend(reading.unknown)
    for answer in rows[0].answers:
        _fill(result.hypotheses.add(), answer, model)
    return model.encoder.checked(message)


def _fill(hypothesis: pb.GenerateResponse.Hypothesis, answer: Answer, model: ServedPair) -> None:
    hypothesis.text = model.detokenizer.text(answer.tokens)
    hypothesis.tokens.extend(map(model.detokenizer.token, answer.tokens))
    hypothesis.log_probability = answer.log_probability
    hypothesis.score = answer.score
    hypothesis.is_complete = answer.is_complete
    for weights in answer.attention if answer.attention is not None else ():
        hypothesis.attention.add(weights=weights.tolist())
