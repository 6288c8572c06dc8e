"""From one `GenerateRequest` to its stream of answers: a text in, tokens as they come, and all of it at the end.

The model is found, and refused, before anything waits. Then the text is read on a thread of `decoding`, and its row takes
the same way through the engine as those of a `ModelInfer`.
"""

from collections.abc import Sequence
from functools import partial

import grpc

from server import guard
from server.decoding import DecodePool
from server.errors import InvalidRequest
from server.generation.request import PairRequest
from server.generation.row import Row
from server.generation.search import Answer
from server.generation.served import ServedPair, check_search
from server.generation.wanted import search_of
from server.inference import Admission
from server.parameters import check_id
from server.pb.weir.v1 import tasks_pb2 as pb
from server.preparation import NAME, VERSION, parse
from server.reading import Reading
from server.texts import read
from server.transport.call import Call, Metadata
from server.unread import Unread


def generate(call: Call, admission: Admission, decoding: DecodePool) -> None:
    """Wait for the one message of a `Generate` call. Runs on the transport's thread."""

    def received(payload: bytes | None) -> None:
        if payload is None:
            call.finish(grpc.StatusCode.INVALID_ARGUMENT, "expected one message, got none")
        else:
            _start(call, payload, admission, decoding)

    call.receive(received)


def _start(call: Call, payload: bytes, admission: Admission, decoding: DecodePool) -> None:
    """Check a message as far as that is cheap, and queue it to be read."""
    # Only now: a caller may take its time between call and message, and what is left to it is asked for below.
    arrived_s = admission.clock()
    model = None
    try:
        model = _find(payload, admission)
        job = TextJob(call, payload, model, admission, arrived_s)
        call.on_close(partial(decoding.cancel, job))
        decoding.submit(job)
    except Exception as error:  # noqa: BLE001 - the one place where admission may fail
        admission.refuse(error, call, model, arrived_s)


def _find(payload: bytes, admission: Admission) -> ServedPair:
    model = admission.find(*guard.read_texts(payload, NAME, VERSION))
    if not isinstance(model, ServedPair):
        raise InvalidRequest(
            f"model {model.name!r} makes no sequences of sequences: its bundle is one graph"
        )
    return model


class TextJob:
    """A request until its text is a row; see `decoding.Job`.

    Args:
        call: to be answered.
        payload: a `GenerateRequest`.
        model: that it names.
        admission: gives it its time, and counts it if it fails.
        arrived_s: when it came.

    Raises:
        InvalidRequest: the model reads no texts.
    """

    def __init__(
        self, call: Call, payload: bytes, model: ServedPair, admission: Admission, arrived_s: float
    ) -> None:
        if model.reader is None:
            raise InvalidRequest(
                f"model {model.name!r} takes no texts: its bundle says nothing of how to read them "
                "(tokenisation)"
            )
        self.payload_bytes = len(payload)
        self.arrived_s = arrived_s
        self.deadline_s = arrived_s + admission.left_s(call.time_left_s())
        self.is_wanted = True
        self._admission = admission
        self._call = call
        self._model = model
        self._payload = payload
        self._reader = model.reader
        self._request: PairRequest | None = None

    def work(self) -> None:
        """Unpack, check, and read the text."""
        guard.check_texts(self._payload)
        message = parse(pb.GenerateRequest, self._payload)
        self._payload = b""
        check_id(message.id)
        search = search_of(message)
        check_search(search, self._model)
        reading = read(message.text, self._reader)
        inputs = self._reader.rows([reading])
        self._model.rules.complete(inputs)
        self._model.rules.check(inputs)
        (row,) = self._model.pair.rows(inputs, search, arrived_s=self.arrived_s)
        row.attends = message.attention
        if search.slots == 1:
            row.told = _Told(self._call, self._model)
        self._request = PairRequest(
            self._model,
            _StreamEnd(self._call),
            sources=[row],
            encode=partial(_encode, self._model, message.id, reading),
            queued_s=self._admission.clock(),
            deadline_s=self.deadline_s,
            clock=self._admission.clock,
        )

    def proceed(self) -> None:
        """Queue the row for the model."""
        if self._request is not None:
            self._model.scheduler.submit(self._request)
            self._call.on_close(self._request.cancel)

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        self._admission.refuse(error, self._call, self._model, self.arrived_s)


class _Told:
    """Sends each token as it is chosen."""

    def __init__(self, call: Call, model: ServedPair) -> None:
        self._call = call
        self._unread = Unread(call)
        self._writer = model.writer
        self._draft = model.writer.begin()

    def __call__(self, token: int, log_probability: float, /) -> None:
        if self._call.cancelled:
            return
        message = pb.GenerateResponse()
        message.token.token = self._writer.token(token)
        message.token.text = self._draft.add(token)
        message.token.log_probability = log_probability
        self._unread.send(message.SerializeToString())


class _StreamEnd:
    """A call whose answer is the last message of a stream; see `pending.Reply`."""

    def __init__(self, call: Call) -> None:
        self._call = call

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
            return False
        self._call.send(message)
        # A caller that has the result need not wait for the status.
        self._call.finish(code, details, trailers=trailers)
        return True


def _encode(model: ServedPair, request_id: str, reading: Reading, rows: Sequence[Row]) -> bytes:
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
    hypothesis.text = model.writer.write(answer.tokens)
    hypothesis.tokens.extend(map(model.writer.token, answer.tokens))
    hypothesis.log_probability = answer.log_probability
    hypothesis.score = answer.score
    hypothesis.is_complete = answer.is_complete
    for weights in answer.attention if answer.attention is not None else ():
        hypothesis.attention.add(weights=weights.tolist())
