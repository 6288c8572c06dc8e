"""Decoder batch: continuous batching, in which rows join and leave between steps. Pure.

Rules:
- A row is encoded once, in a batch. It then waits for free slots, and is decoded step by step until
  its hypotheses are complete.
- Rows join in the order in which they were encoded. A row that needs more slots than are free
  blocks those behind it; otherwise many small rows would keep it out for ever.
- More rows are encoded than fit: a ready row takes the slots of a row that leaves, and the encoder
  runs in batches too. Rows for as many slots as there are may be ready.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle import hypothesis_ranking as rules
from weir.server.generation.beam_search import BeamSearch
from weir.server.generation.sampling import (
    GREEDY,
    DecoderStep,
    Hypothesis,
    Sampler,
    SearchContext,
    TokenCallback,
    TokenSearch,
)
from weir.server.generation.sampling_parameters import SamplingParameters, SearchParameters
from weir.server.generation.slots import Layout, Slots
from weir.server.runtime.collate import Tokens
from weir.server.runtime.io_binding import Device, DeviceTensor

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(slots=True, eq=False)
class Row:
    """One source sequence and its hypotheses.

    Attributes:
        number: its position in the request.
        inputs: of the encoder, without the batch axis: (length, …) with a time axis, else (…).
        on_token: called with each token; only for one hypothesis without a beam.
        hypotheses: best first, once it is done.
        first_step: the number of the step in which it joined, of all the batch's.
    """

    number: int
    inputs: Mapping[str, Array]
    length: int
    limit: int
    search: SearchParameters
    arrived_s: float
    wants_attention: bool = False
    on_token: TokenCallback | None = None
    hypotheses: list[Hypothesis] = field(default_factory=list)
    first_step: int = 0
    first_step_s: float = 0.0
    _running: int = 0

    def start_searches(self, end: int) -> list[TokenSearch]:
        """The searches of the row: one for each sample, or one in all."""
        search = self.search
        source_tokens = self.length if self.wants_attention else None
        context = SearchContext(end, self.limit, search.length_power, source_tokens)
        if search.sampling is not None:
            searches: list[TokenSearch] = [
                Sampler(
                    context,
                    self.on_token,
                    search.sampling,
                    _generator(search.sampling, self.number, sample),
                )
                for sample in range(search.n_best)
            ]
        elif search.width > 1:
            searches = [BeamSearch(context, search.width, search.n_best)]
        else:
            searches = [Sampler(context, self.on_token)]
        self._running = len(searches)
        return searches

    def search_done(self, hypotheses: Sequence[Hypothesis]) -> bool:
        """Add the hypotheses of one search; True once all searches are done."""
        self._running -= 1
        self.hypotheses = rules.ranked([*self.hypotheses, *hypotheses])
        return not self._running


def _generator(sampling: SamplingParameters, row: int, sample: int) -> np.random.Generator:
    """A random stream for each row and sample of a request, independent of other requests."""
    return np.random.Generator(np.random.PCG64([sampling.seed, row, sample]))


@dataclass(slots=True, eq=False)
class _Active:
    """A running search and its slots."""

    row: Row
    search: TokenSearch
    at: list[int]


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows with the encoder's outputs for each, by input of the decoder.

    Attributes:
        tokens: real and computed tokens of the rows.
    """

    rows: Sequence[Row]
    memory: Sequence[dict[str, Array]]
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of one step."""

    slots: int
    ended: Sequence[Row]
    failed: Mapping[Row, Exception]


class DecoderBatch:
    """Rows that are encoded, and rows that are decoded together.

    Args:
        decode: runs the decoder on arrays.
        device: runs it in place of `decode`, and keeps the rows' state in its memory.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        encode: Run,
        decode: Run,
        lengths: str | None,
        capacity: int,
        device: Device | None = None,
    ) -> None:
        self._layout = layout
        self._decoding = layout.decoding
        self._encode = encode
        self._decode = decode
        self._device = device
        self._kept = frozenset(layout.decoding.from_step.values()) if device else frozenset()
        self._lengths = lengths
        self._ready: deque[tuple[Row, dict[str, Array]]] = deque()
        self._capacity = capacity
        self._slots = Slots(layout, capacity)
        self._active: list[_Active] = []
        self._by_slot: list[_Active] = []

    @property
    def wants_rows(self) -> bool:
        """Whether more rows may be encoded."""
        return self.ready_slots < self._capacity

    @property
    def ready_slots(self) -> int:
        """Number of slots that ready rows will take."""
        return sum([row.search.slots for row, _ in self._ready])

    @property
    def joining(self) -> list[Row]:
        """The ready rows that `join` would move."""
        free, found = self._slots.free, []
        for row, _ in self._ready:
            free -= row.search.slots
            if free < 0:
                break
            found.append(row)
        return found

    @property
    def is_busy(self) -> bool:
        """Whether any row can be stepped."""
        return bool(self._active or self._ready)

    @property
    def used_slots(self) -> int:
        """Number of slots in use."""
        return self._slots.used

    def encode(self, rows: Sequence[Row]) -> EncodedRows:
        """Run the encoder over rows. Any thread may call it: the batch does not change.

        Raises:
            Exception: of the run.
        """
        outputs = self._encode(stacked(rows, self._layout.padding, self._lengths))
        memory = [self._memory(outputs, number, row) for number, row in enumerate(rows)]
        if self._lengths is None:
            return EncodedRows(rows, memory, Tokens())
        lengths = [row.length for row in rows]
        return EncodedRows(rows, memory, Tokens(sum(lengths), len(rows) * max(lengths)))

    def add(self, encoded: EncodedRows) -> None:
        """Make encoded rows ready to join."""
        self._ready.extend(zip(encoded.rows, encoded.memory, strict=True))

    def join(self) -> list[Row]:
        """Move ready rows into free slots; returns the rows whose first step is next."""
        joined = []
        while self._ready and self._ready[0][0].search.slots <= self._slots.free:
            row, memory = self._ready.popleft()
            for search in row.start_searches(self._decoding.end):
                at = self._slots.place(memory, row.length, search.slots)
                active = _Active(row, search, at)
                self._active.append(active)
                self._by_slot.extend([active] * len(at))
            joined.append(row)
        return joined

    def step(self) -> StepResult:
        """Run the decoder once over all slots.

        Raises:
            Exception: of the run; nothing has changed then.
        """
        outputs, states = self._run_decoder()
        slots = self._slots.used
        step = self._read(outputs)
        self._slots.advance(np.array(step.tokens, np.int64), states)
        done, failed = self._advance(step)
        ended = [each.row for each in done if each.row.search_done(each.search.hypotheses)]
        stuck = (each for each in self._active if each.row in failed and each not in done)
        self._leave([*done, *stuck])
        return StepResult(slots, ended, failed)

    def drop(self, rows: Collection[Row]) -> None:
        """Remove those of the rows that are not done."""
        self._ready = deque(each for each in self._ready if each[0] not in rows)
        self._leave([active for active in self._active if active.row in rows])

    def _run_decoder(
        self,
    ) -> tuple[Mapping[str, Array], Mapping[str, Array | DeviceTensor]]:
        """Run a step; returns the outputs to read, and those that are the next state."""
        if self._device is None:
            outputs = self._decode(self._slots.inputs())
            return outputs, outputs
        bound = self._device.run_bound(self._slots.bound_inputs(self._device), self._kept)
        return bound.arrays, bound.kept

    def _memory(self, outputs: Mapping[str, Array], number: int, row: Row) -> dict[str, Array]:
        """The encoder's outputs for one row of its batch, by input of the decoder."""
        return {
            name: outputs[output][number, : row.length]
            if name in self._layout.padding
            else outputs[output][number]
            for name, output in self._decoding.from_encoder.items()
        }

    def _read(self, outputs: Mapping[str, Array]) -> DecoderStep:
        decoding = self._decoding
        log_probabilities = outputs[decoding.log_probabilities]  # (slots, tokens)
        log_probabilities[:, [decoding.padding, decoding.begin]] = -np.inf
        tokens = log_probabilities.argmax(axis=1)  # (slots,)
        values = log_probabilities[np.arange(len(tokens)), tokens]  # (slots,)
        attention = outputs[decoding.attention] if decoding.attention else None
        return DecoderStep(log_probabilities, tokens.tolist(), values.tolist(), attention)

    def _advance(self, step: DecoderStep) -> tuple[list[_Active], dict[Row, Exception]]:
        """Advance every search by a step; returns those that are done, and rows that failed."""
        done: list[_Active] = []
        failed: dict[Row, Exception] = {}
        for active in self._active:
            try:
                continuation = active.search.advance(step, active.at)
            except Exception as error:  # noqa: BLE001 - fails one row alone
                failed[active.row] = error
                continue
            if continuation is None:
                done.append(active)
            elif continuation is not GREEDY:
                parents = [active.at[parent] for parent in continuation.parents]
                self._slots.redirect(active.at, continuation.tokens, parents)
        return done, failed

    def _leave(self, gone: Sequence[_Active]) -> None:
        if not gone:
            return
        self._slots.to_host()  # may raise, so before anything changes
        leaving = set(gone)
        self._active = [each for each in self._active if each not in leaving]
        for active in gone:
            # From the last slot: the one that moves is then never one that is still to be freed.
            for slot in sorted(active.at, reverse=True):
                last = self._slots.leave(slot)
                moved = self._by_slot.pop()
                if slot != last:
                    self._by_slot[slot] = moved
                    moved.at[moved.at.index(last)] = slot
        self._slots.shrink()


def stacked(
    rows: Sequence[Row], padding: Mapping[str, int], lengths: str | None
) -> dict[str, Array]:
    """The encoder's inputs of rows, padded to the longest."""
    longest = max(row.length for row in rows)
    inputs = {}
    for name, first in rows[0].inputs.items():
        values = [row.inputs[name] for row in rows]
        if name not in padding:
            inputs[name] = np.stack(values)
            continue
        batch = np.full((len(rows), longest, *first.shape[1:]), padding[name], first.dtype)
        for number, value in enumerate(values):
            batch[number, : len(value)] = value
        inputs[name] = batch
    if lengths is not None:
        inputs[lengths] = np.array([row.length for row in rows])
    return inputs
