"""Request of an encoder-decoder in its engine, and the `ModelInfer` messages that answer it.

A unary call gets one message. On a stream, a request of one row without a beam gets a message for
each token, and a last one with its score.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from weir.server.errors import Cancelled
from weir.server.generation.decoder_batch import Row
from weir.server.protocol.response_encoder import Output, ResponseEncoder
from weir.server.scheduling.request import CLOSED_REPLY
from weir.server.telemetry.model_stats import ModelStats
from weir.server.telemetry.request_record import Reply
from weir.server.transport.status import REASON_OF, status_of

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


class GenerationQueue(Protocol):
    """The queue of an encoder-decoder; see `engine.Engine`."""

    def submit(self, request: "GenerationRequest") -> None:
        """Queue a request."""

    def cancel(self, request: "GenerationRequest") -> None:
        """Remove a request whose caller is gone."""


class GenerationResponse(Protocol):
    """Writes the messages that answer a request.

    Attributes:
        sent_bytes: of messages that were sent before the last.
    """

    sent_bytes: int

    def encode(self, rows: Sequence[Row]) -> bytes:
        """The last message, from rows that are done."""


class GenerationRequest:
    """A request in the engine of an encoder-decoder. It gets exactly one of `answer` and `fail`.

    Args:
        queue: of its model.
        stats: of its model.
        reply: where the last message goes.
        sources: its rows.
        response: writes the messages.
        queued_s: since when it waits for the model alone.
        deadline_s: never run after this time.
        request_bytes: size of the message.
        clock: of these times.
    """

    def __init__(
        self,
        queue: GenerationQueue,
        stats: ModelStats,
        reply: Reply,
        *,
        sources: Sequence[Row],
        response: GenerationResponse,
        queued_s: float,
        deadline_s: float,
        request_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self.sources = sources
        self.rows = len(sources)
        self.key: Hashable = ()
        self.length = max(row.length for row in sources)
        self.arrived_s = sources[0].arrived_s
        self.queued_s = queued_s
        self.deadline_s = deadline_s
        self.is_answered = False
        self.request_bytes = request_bytes
        self.response_bytes = 0
        self._clock = clock
        self._queue = queue
        self._stats = stats
        self._reply: Reply = reply
        self._response: GenerationResponse | None = response
        self.record = reply.record
        if self.record is not None:
            self.record.queued(
                stats.model,
                stats.version,
                rows=self.rows,
                length=self.length,
                arrived_s=self.arrived_s,
                queued_s=queued_s,
            )

    def submit(self) -> None:
        """Queue the request for its model.

        Raises:
            Overloaded: it does not fit into the queue.
            Draining: the model is being unloaded.
        """
        self._queue.submit(self)

    def cancel(self) -> None:
        """Remove the request, as its caller is gone."""
        self._queue.cancel(self)

    def answer(self) -> None:
        """Encode and send the last message; a caller that left counts as cancelled."""
        message = self._response.encode(self.sources) if self._response else b""
        self._record_steps()
        self.is_answered = self._reply.finish(grpc.StatusCode.OK, message=message)
        self._release()
        if self.is_answered:
            self.response_bytes += len(message)
        else:
            self._count_failure(grpc.StatusCode.CANCELLED.name, REASON_OF[Cancelled])

    def fail(self, error: Exception) -> None:
        """Send the status of a failure."""
        status = status_of(error)
        self._record_steps()
        self._reply.finish(status.code, status.details, trailers=status.trailers)
        self._release()
        self._count_failure(status.code.name, status.reason)

    def _record_steps(self) -> None:
        if self.record is None:
            return
        firsts = [row.first_step_s for row in self.sources if row.first_step_s]
        self.record.first_token_s = min(firsts, default=None)
        steps = [each.steps for row in self.sources for each in row.hypotheses]
        self.record.steps = max(steps, default=None)

    def _release(self) -> None:
        """Drop the call: until it is freed, it counts against its connection's open calls."""
        if self._response is not None:
            self.response_bytes = self._response.sent_bytes
        self._reply, self._response = CLOSED_REPLY, None
        for row in self.sources:
            row.on_token = None

    def _count_failure(self, status: str, reason: str) -> None:
        seconds = self._clock() - self.arrived_s
        self._stats.request_failed(status, reason, seconds, self.request_bytes, self.response_bytes)


class InferResponse:
    """Writes the `ModelInferResponse`s of one request; see `GenerationResponse`.

    Args:
        encoder: of the model.
        padding: fills short rows of `output_tokens`.
        request_id: echoed.
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
