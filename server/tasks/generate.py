"""From one `GenerateRequest` to its stream of answers: a text in, tokens as they come, and all of it at the end.

The model is found, and refused, before anything waits. Then the text is read on a thread of `decoding`, and its row takes
the same way through the engine as those of a `ModelInfer`.
"""

from collections.abc import Sequence

import grpc

from weir.protocol import tasks_pb2 as pb
from weir.server.errors import DeadlineExceeded, InvalidRequest
from weir.server.generation.decoder_batch import Row
from weir.server.generation.encoder_decoder import EncoderDecoderModel
from weir.server.generation.request import GenerationRequest
from weir.server.generation.sampling_parameters import read_message
from weir.server.preprocessing.detokenizer import DetokenizerStream
from weir.server.preprocessing.tokenizer import TokenizedText, Tokenizer
from weir.server.protocol import message_limits
from weir.server.protocol.request_decoder import check_id, parse_message
from weir.server.scheduling.admission import Admission
from weir.server.scheduling.deadlines import IdleTimeout
from weir.server.scheduling.worker_pool import WorkerPool
from weir.server.tasks.task_call import Arrived, Material, begin
from weir.server.tasks.text import tokenize
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

    def find(name: str, version: str) -> EncoderDecoderModel:
        model = admission.find(name, version)
        if not isinstance(model, EncoderDecoderModel):
            raise InvalidRequest(
                f"model {name!r} makes no sequences of sequences: its bundle is one graph"
            )
        return model

    # Only now: a caller may take its time between call and message, and what is left to it is asked for in there.
    begin(call, payload, admission, decoding, find=find, check=_check, make=_request)


def _check(model: EncoderDecoderModel) -> None:
    _tokenizer(model)


def _tokenizer(model: EncoderDecoderModel) -> Tokenizer:
    if model.tokenizer is None:
        raise InvalidRequest(
            f"model {model.name!r} takes no texts: its bundle says nothing of how to read them "
            "(tokenisation)"
        )
    return model.tokenizer


def _request(arrived: Arrived, material: Material[EncoderDecoderModel]) -> GenerationRequest:
    """Parse and check the message, and tokenize its text."""
    model, tokenizer = material.model, _tokenizer(material.model)
    message_limits.check_texts(material.payload)
    message = parse_message(pb.GenerateRequest, material.payload)
    check_id(message.id)
    search = read_message(message)
    model.check_search(search)
    source = tokenize(message.text, tokenizer)
    inputs = tokenizer.rows([source])
    model.rules.complete(inputs)
    model.rules.check(inputs)
    (row,) = model.graphs.rows(inputs, search, arrived_s=arrived.arrived_s)
    row.wants_attention = message.attention
    stream = GenerateStream(arrived.call, model, message.id, source)
    if search.slots == 1:
        row.on_token = stream.send_token
    return GenerationRequest(
        model.scheduler,
        model.metrics,
        stream,
        sources=[row],
        response=stream,
        queued_s=material.clock(),
        deadline_s=arrived.deadline_s,
        request_bytes=len(material.payload),
        clock=material.clock,
    )


class GenerateStream:
    """The stream of one `Generate` call: a message for each token, the result, and the status.

    It is the request's `Reply` and its `GenerationResponse`.
    """

    def __init__(
        self, call: Call, model: EncoderDecoderModel, request_id: str, source: TokenizedText
    ) -> None:
        self.sent_bytes = 0
        self.record = call.record
        self._call = call
        self._sender = BoundedSender(call)
        self._model = model
        self._text = DetokenizerStream(model.detokenizer)
        self._request_id = request_id
        self._source = source

    @property
    def cancelled(self) -> bool:
        """Whether the client closed the call."""
        return self._call.cancelled

    def send_token(self, token: int, log_probability: float) -> None:
        """Send a token as it is chosen."""
        if self._call.cancelled:
            return
        message = pb.GenerateResponse()
        message.token.token = self._model.detokenizer.token(token)
        message.token.text = self._text.add(token)
        message.token.log_probability = log_probability
        payload = message.SerializeToString()
        self.sent_bytes += len(payload)
        self._sender.send(payload)

    def encode(self, rows: Sequence[Row]) -> bytes:
        """The last message, with the hypotheses of the one row."""
        model, source = self._model, self._source
        message = pb.GenerateResponse()
        result = message.result
        result.model_name, result.model_version, result.id = (
            model.name,
            model.version,
            self._request_id,
        )
        result.source.extend(source.tokens)
        result.unknown.extend(source.unknown)
        for each in rows[0].hypotheses:
            hypothesis = result.hypotheses.add()
            hypothesis.text = model.detokenizer.text(each.tokens)
            hypothesis.tokens.extend(map(model.detokenizer.token, each.tokens))
            hypothesis.log_probability = each.log_probability
            hypothesis.score = each.score
            hypothesis.is_complete = each.is_complete
            for weights in each.attention if each.attention is not None else ():
                hypothesis.attention.add(weights=weights.tolist())
        return model.encoder.checked(message)

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        """Send the result, or a status alone; False if the client is gone."""
        if message is None:
            return self._call.finish(code, details, trailers=trailers)
        if self._call.cancelled:
            return self._call.finish(grpc.StatusCode.CANCELLED)
        self._call.send(message)
        # A client that has the result need not wait for the status.
        self._call.finish(code, details, trailers=trailers)
        return True
