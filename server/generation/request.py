"""Request of an encoder-decoder in its engine, and the `ModelInfer` messages that answer it.

A unary call gets one message. On a stream, a request of one row without a beam gets a message for
each token, and a last one with its score.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from weir.server.generation.decoder_batch import Row
from weir.server.protocol.response_encoder import Output, ResponseEncoder
from weir.server.runtime.signature import Fit
from weir.server.scheduling.request import Request, RequestSink
from weir.server.telemetry.model_stats import ModelStats
from weir.server.telemetry.request_record import Reply, RequestRecord

Array = NDArray[Any]

OUTPUT_TOKENS, OUTPUT_LENGTHS, SCORES = "output_tokens", "output_lengths", "scores"
OUTPUTS = {
    OUTPUT_TOKENS: ("INT64", ("steps",)),
    OUTPUT_LENGTHS: ("INT64", ()),
    SCORES: ("FP32", ()),
}
"""Datatype of each output, and its axes after the batch axis."""

SendPart = Callable[[bytes], bool]
"""Sends a message of a stream that is not the last; False if the caller is gone."""


GenerationRequest = Request[Sequence[Row]]
"""A request in the engine of an encoder-decoder; its inputs are its rows."""


class GenerationResponse(Protocol):
    """Writes the messages that answer a request.

    Attributes:
        sent_bytes: of messages that were sent before the last.
    """

    sent_bytes: int

    def encode(self, rows: Sequence[Row]) -> bytes:
        """The last message, from rows that are done."""


def generation_request(
    queue: RequestSink[Sequence[Row]],
    stats: ModelStats,
    reply: Reply,
    rows: Sequence[Row],
    response: GenerationResponse,
    *,
    queued_s: float,
    deadline_s: float,
    request_bytes: int,
    clock: Callable[[], float],
) -> GenerationRequest:
    """The request of some rows, which `response` answers; see `scheduling.request.Request`."""
    return Request(
        queue,
        stats,
        reply,
        inputs=rows,
        fit=Fit(len(rows), (), max(row.length for row in rows)),
        encode=response.encode,
        arrived_s=rows[0].arrived_s,
        queued_s=queued_s,
        deadline_s=deadline_s,
        request_bytes=request_bytes,
        clock=clock,
        close=partial(_close, rows, response, reply.record),
    )


def _close(rows: Sequence[Row], response: GenerationResponse, record: RequestRecord | None) -> int:
    """Record the steps and drop the rows' callbacks; the bytes that were sent."""
    if record is not None:
        firsts = [row.first_step_s for row in rows if row.first_step_s]
        record.first_token_s = min(firsts, default=None)
        record.steps = max([each.steps for row in rows for each in row.hypotheses], default=None)
    for row in rows:
        row.on_token = None
    return response.sent_bytes


class InferResponse:
    """Writes the `ModelInferResponse`s of one request; see `GenerationResponse`.

    Args:
        padding: fills short rows of `output_tokens`.
        requested: names of outputs. In the message of a token, `scores` is the sum of
            log-probabilities so far.
        send: None: tokens are not sent one by one.
    """

    def __init__(
        self,
        encoder: ResponseEncoder,
        padding: int,
        request_id: str,
        requested: Sequence[str],
        send: SendPart | None = None,
    ) -> None:
        self.sent_bytes = 0
        self._sent_tokens = 0
        self._total = 0.0
        self._encoder = encoder
        self._padding = padding
        self._request_id = request_id
        self._requested = requested
        self._send = send

    def send_token(self, token: int, log_probability: float) -> None:
        """Send one token in a message of its own."""
        if self._send is None:
            return
        self._sent_tokens += 1
        self._total += log_probability
        message = self._encode(
            {
                OUTPUT_TOKENS: np.array([[token]], np.int64),
                OUTPUT_LENGTHS: np.ones(1, np.int64),
                SCORES: np.array([self._total], np.float32),
            }
        )
        self.sent_bytes += len(message)
        self._send(message)

    def encode(self, rows: Sequence[Row]) -> bytes:
        """The last message: the best hypothesis of each row, without tokens that were sent."""
        outputs = outputs_of(rows, self._padding)
        if sent := self._sent_tokens:
            outputs[OUTPUT_TOKENS] = outputs[OUTPUT_TOKENS][:, sent:]
            outputs[OUTPUT_LENGTHS] = outputs[OUTPUT_LENGTHS] - sent
        return self._encode(outputs)

    def _encode(self, outputs: Mapping[str, Array]) -> bytes:
        return self._encoder.encode(
            self._request_id,
            [Output(name, OUTPUTS[name][0], outputs[name]) for name in self._requested],
        )


def outputs_of(rows: Sequence[Row], padding: int) -> dict[str, Array]:
    """The best hypothesis of each row, as tensors."""
    best = [row.hypotheses[0] for row in rows]
    counts = np.array([len(each.tokens) for each in best], np.int64)
    tokens = np.full((len(rows), int(counts.max())), padding, np.int64)
    for row, each in enumerate(best):
        tokens[row, : len(each.tokens)] = each.tokens
    scores = np.array([each.score for each in best], np.float32)
    return {OUTPUT_TOKENS: tokens, OUTPUT_LENGTHS: counts, SCORES: scores}
