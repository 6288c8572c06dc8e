"""What an encoder-decoder answers, as messages: rows that have ended, and on a stream one token after the other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.server.generation.encoder_decoder import OUTPUT_LENGTHS, OUTPUT_TOKENS
from weir.server.generation.row import Row
from weir.server.generation.served import SCORES, ServedPair, outputs_of
from weir.server.protocol.response_encoder import Output

Array = NDArray[Any]

Part = Callable[[bytes], bool]
"""Sends a part of the answer on a stream; False if nobody waits."""


def encode_rows(
    model: ServedPair, request_id: str, wanted: Sequence[str], rows: Sequence[Row], sent: int = 0
) -> bytes:
    """A `ModelInferResponse` with the wanted outputs.

    Args:
        model: that answers.
        request_id: echoed.
        wanted: names of outputs.
        rows: that have ended.
        sent: tokens of the only row that were sent before, and are not sent again.
    """
    outputs = outputs_of(rows, model.pair.decoding.padding)
    if sent:
        outputs[OUTPUT_TOKENS] = outputs[OUTPUT_TOKENS][:, sent:]
        outputs[OUTPUT_LENGTHS] = outputs[OUTPUT_LENGTHS] - sent
    return model.encoder.encode(request_id, _chosen(model, wanted, outputs))


class Parts:
    """Sends the tokens of one row as they come, each as a `ModelInferResponse` of its own.

    Args:
        model: that answers.
        send: puts a part on the stream.
        request_id: echoed.
        wanted: names of outputs; `scores` holds the log-probability of the tokens so far.
        row: whose tokens.
    """

    def __init__(
        self, model: ServedPair, send: Part, request_id: str, wanted: Sequence[str], row: Row
    ) -> None:
        self.sent = 0
        self._row = row
        self._model = model
        self._send = send
        self._request_id = request_id
        self._wanted = wanted
        self._total = 0.0

    def __call__(self, token: int, log_probability: float, /) -> None:
        """One more token."""
        self.sent += 1
        self._total += log_probability
        outputs: dict[str, Array] = {
            OUTPUT_TOKENS: np.array([[token]], np.int64),
            OUTPUT_LENGTHS: np.ones(1, np.int64),
            SCORES: np.array([self._total], np.float32),
        }
        chosen = _chosen(self._model, self._wanted, outputs)
        message = self._model.encoder.encode(self._request_id, chosen)
        self._row.sent_bytes += len(message)
        self._send(message)


def _chosen(model: ServedPair, wanted: Sequence[str], outputs: Mapping[str, Array]) -> list[Output]:
    specs = model.signature.outputs
    return [Output(name, specs[name].datatype, outputs[name]) for name in wanted]
