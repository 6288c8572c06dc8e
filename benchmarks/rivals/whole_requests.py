"""Weir's server without continuous batching: a batch is decoded as a whole.

    python -m benchmarks.rivals.whole_requests MODELS --max-batch-rows 32 [any flag of weir serve]

It collects a batch, first come, first served, when the previous one is done, encodes it, and steps
until its last row has ended; then all requests are answered. With batches of one row it decodes one
request at a time. Nothing else differs from Weir: transport, checks, queue, sessions and encoding
are the same code, and the golden test runs before the bundle serves. Greedy search only.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.first_come import first_come
from weir.server import __main__ as server
from weir.server.generation.decoder_batch import EncodedRows, Row, Run, StepResult, stacked
from weir.server.generation.encoder_decoder import EncoderDecoder
from weir.server.generation.sampling import DecoderStep, TokenSearch
from weir.server.generation.slots import Layout
from weir.server.runtime.collate import Tokens
from weir.server.scheduling import batching

Array = NDArray[Any]


@dataclass(slots=True, eq=False)
class _Member:
    row: Row
    searching: TokenSearch
    place: int


class WholeRequests:
    """Replacement for `weir.server.generation.decoder_batch.DecoderBatch`, with its methods."""

    def __init__(self, layout: Layout, *, encode: Run, decode: Run, lengths: str | None) -> None:
        self._layout = layout
        self._decoding = layout.decoding
        self._encode = encode
        self._decode = decode
        self._lengths = lengths
        self._inputs: dict[str, Array] = {}
        self._joined: list[Row] = []
        self._open: list[_Member] = []
        self._ended: list[Row] = []
        self.used_slots = 0

    @property
    def wants_rows(self) -> bool:
        """Rows join only when the batch is done."""
        return not self.is_busy

    @property
    def is_busy(self) -> bool:
        """Whether a batch is running."""
        return self.used_slots > 0

    def encode(self, rows: Sequence[Row]) -> EncodedRows:
        """Run the encoder over all rows of the batch."""
        encoded = self._encode(stacked(rows, self._layout.padding, self._lengths))
        memory = {name: encoded[output] for name, output in self._decoding.from_encoder.items()}
        lengths = [row.length for row in rows]
        return EncodedRows(rows, [memory], Tokens(sum(lengths), len(rows) * max(lengths)))

    def add(self, encoded: EncodedRows) -> None:
        """Begin the batch of these rows; their memory is one for all."""
        rows, decoding, count = encoded.rows, self._decoding, len(encoded.rows)
        (self._inputs,) = encoded.memory
        self._inputs[decoding.previous] = np.full(count, decoding.begin, np.int64)
        if decoding.lengths is not None:
            self._inputs[decoding.lengths] = np.array([row.length for row in rows])
        self._open = [
            _Member(row, searching, place)
            for place, row in enumerate(rows)
            for searching in row.start_searches(decoding.end)
        ]
        if len(self._open) != count or any(each.searching.slots > 1 for each in self._open):
            raise ValueError("expected one greedy search a row")
        self._joined, self._ended, self.used_slots = list(rows), [], count

    def join(self) -> list[Row]:
        """The rows whose first step is the next one."""
        joined, self._joined = self._joined, []
        return joined

    def step(self) -> StepResult:
        """One step of every row, ended ones included; all rows end with the last."""
        decoding, inputs, slots = self._decoding, self._inputs, self.used_slots
        outputs = self._decode(inputs)
        log_probabilities = outputs[decoding.log_probabilities]  # (rows, tokens)
        log_probabilities[:, [decoding.padding, decoding.begin]] = -np.inf
        tokens = log_probabilities.argmax(axis=1)  # (rows,)
        values = log_probabilities[np.arange(slots), tokens]  # (rows,)
        inputs[decoding.previous] = tokens
        inputs.update({name: outputs[output] for name, output in decoding.from_step.items()})
        attention = outputs[decoding.attention] if decoding.attention else None
        self._advance(DecoderStep(log_probabilities, tokens.tolist(), values.tolist(), attention))
        if self._open:
            return StepResult(slots, (), {})
        self.used_slots = 0
        return StepResult(slots, self._ended, {})

    def drop(self, rows: Collection[Row]) -> None:
        """Remove rows; the batch continues without answering them."""
        self._open = [each for each in self._open if each.row not in rows]
        self._ended = [row for row in self._ended if row not in rows]
        if not self._open and not self._ended:
            self.used_slots = 0

    def _advance(self, step: DecoderStep) -> None:
        going_on = []
        for member in self._open:
            if member.searching.advance(step, [member.place]) is not None:
                going_on.append(member)
            elif member.row.search_done(member.searching.hypotheses):
                self._ended.append(member.row)
        self._open = going_on


def _decoder_batch(graphs: EncoderDecoder, _capacity: int) -> WholeRequests:
    return WholeRequests(
        graphs.layout, encode=graphs.encoder.run, decode=graphs.decoder.run, lengths=graphs.lengths
    )


if __name__ == "__main__":
    # The server has no setting for this worse scheduling.
    batching.select = first_come
    EncoderDecoder.decoder_batch = _decoder_batch  # type: ignore[method-assign, assignment]
    server.main()
