"""Text generation (`Generate`): a text in, tokens as they are chosen, then the result."""

from collections.abc import Sequence
from functools import partial

import grpc

from weir.protocol import tasks_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.generation.decoder_batch import Row
from weir.server.generation.encoder_decoder import EncoderDecoderModel
from weir.server.generation.request import GenerationRequest, generation_request
from weir.server.generation.sampling_parameters import read_message
from weir.server.preprocessing.detokenizer import DetokenizerStream
from weir.server.preprocessing.tokenized_text import TokenizedText
from weir.server.preprocessing.tokenizer import BundleTokenizer
from weir.server.protocol import message_limits
from weir.server.protocol.request_decoder import parse_message
from weir.server.scheduling.request import Model
from weir.server.tasks.task_call import Preprocess, TaskCall
from weir.server.tasks.text import tokenize, tokenizer_of
from weir.server.transport.base import BoundedSender, Call, Metadata


def generate(model: Model) -> Preprocess:
    """`Generate` on a model; see `task_call.Task`."""
    if not isinstance(model, EncoderDecoderModel):
        raise InvalidRequest(
            f"model {model.name!r} is a single graph: Generate needs an encoder-decoder"
        )
    return partial(_preprocess, model, tokenizer_of(model.name, model.tokenizer))


def _preprocess(
    model: EncoderDecoderModel, tokenizer: BundleTokenizer, call: TaskCall
) -> GenerationRequest:
    message_limits.check_texts(call.payload)
    message = parse_message(pb.GenerateRequest, call.payload)
    search = read_message(message)
    model.check_search(search)
    source = tokenize(message.text, tokenizer)
    inputs = tokenizer.rows([source])
    model.rules.complete(inputs)
    model.rules.check(inputs)
    (row,) = model.graphs.rows(inputs, search, arrived_s=call.arrived_s)
    row.wants_attention = message.attention
    stream = GenerateStream(call.call, model, message.id, source)
    if search.slots == 1:
        row.on_token = stream.send_token
    return generation_request(
        model.scheduler,
        model.stats,
        stream,
        [row],
        stream,
        queued_s=call.clock(),
        deadline_s=call.deadline_s,
        request_bytes=call.payload_bytes,
        clock=call.clock,
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
        self.caller = call.caller
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
        return model.encoder.checked(message.SerializeToString())

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
