"""The rows of one encoder-decoder, between two steps. Pure: no lock, no clock, no runtime.

Rules:
- A row is encoded once, in a batch; it then waits for room, and is decoded step by step until its answers are there.
- Rows join in the order they were encoded in. One that wants more slots than are free holds up those behind it, or
  many small ones would keep it out for ever.
- More rows may be encoded at a time than there is room for: where one row leaves, one that is ready takes its place, and
  the encoder runs in batches too. It is asked again only when there is room and nobody is ready.
- Between two runs of the encoder there is at least one step, if there is anything to step.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.server.generation.row import GenerationRequest, Row
from weir.server.generation.sampling import LIKELIEST, Searching, Step
from weir.server.generation.slots import Layout, Slots
from weir.server.runtime.collate import Tokens

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(slots=True, eq=False)
class _Active:
    row: Row
    searching: Searching
    at: list[int]


@dataclass(frozen=True, slots=True)
class Stepped:
    """What one step came to.

    Attributes:
        slots: that were computed.
        ended: rows whose answers are there.
        failed: rows that left because they cannot go on, and why.
    """

    slots: int
    ended: Sequence[Row]
    failed: Mapping[Row, Exception]


class Generation:
    """Rows that are encoded, and rows that are decoded together.

    Args:
        layout: of the pair.
        encode: runs the encoder.
        decode: runs the decoder, once a step.
        lengths: the encoder's input of lengths; None if it has none.
        capacity: slots.
    """

    def __init__(
        self, layout: Layout, *, encode: Run, decode: Run, lengths: str | None, capacity: int
    ) -> None:
        self._layout = layout
        self._decoding = layout.decoding
        self._encode = encode
        self._decode = decode
        self._lengths = lengths
        self._ready: deque[tuple[Row, dict[str, Array]]] = deque()
        self._slots = Slots(layout, capacity)
        self._active: list[_Active] = []
        self._by_slot: list[_Active] = []

    @property
    def wants_rows(self) -> bool:
        """Whether there is room that nobody who is encoded will take."""
        return self._slots.free > 0 and not self._ready

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to step."""
        return bool(self._active or self._ready)

    @property
    def used_slots(self) -> int:
        """Rows of the decoder in use."""
        return self._slots.used

    def encode(self, rows: Sequence[Row]) -> Tokens:
        """Run the encoder over some rows; they are ready then. What their sources held, and what was computed.

        Raises:
            Exception: whatever the run raises; none of them is ready then.
        """
        outputs = self._encode(_stacked(rows, self._layout.padding, self._lengths))
        self._ready += [(row, self._memory(outputs, place, row)) for place, row in enumerate(rows)]
        if self._lengths is None:
            return Tokens()
        lengths = [row.length for row in rows]
        return Tokens(sum(lengths), len(rows) * max(lengths))

    def join(self) -> list[Row]:
        """Let in who is ready and fits; the rows that the next step is the first for."""
        joined = []
        while self._ready and self._ready[0][0].search.slots <= self._slots.free:
            row, memory = self._ready.popleft()
            for searching in row.searches(self._decoding.end):
                at = self._slots.place(memory, row.length, searching.slots)
                active = _Active(row, searching, at)
                self._active.append(active)
                self._by_slot.extend([active] * len(at))
            joined.append(row)
        return joined

    def step(self) -> Stepped:
        """Make one step of those who were let in.

        Raises:
            Exception: whatever the run raises; nothing has changed.
        """
        outputs = self._decode(self._slots.inputs())
        slots = self._slots.used
        step = self._read(outputs)
        self._slots.go_on(np.array(step.tokens, np.int64), outputs)
        done, failed = self._advance(step, outputs)
        ended = [each.row for each in done if each.row.found(each.searching.answers)]
        stuck = (each for each in self._active if each.row in failed and each not in done)
        self._leave([*done, *stuck])
        return Stepped(slots, ended, failed)

    def drop(self, owner: GenerationRequest) -> None:
        """Forget the rows of an owner that have not ended."""
        self._ready = deque(each for each in self._ready if each[0].owner is not owner)
        self._leave([active for active in self._active if active.row.owner is owner])

    def _memory(self, outputs: Mapping[str, Array], place: int, row: Row) -> dict[str, Array]:
        """What the encoder gave for one row of its batch."""
        return {
            name: outputs[output][place, : row.length]
            if name in self._layout.padding
            else outputs[output][place]
            for name, output in self._decoding.from_encoder.items()
        }

    def _read(self, outputs: Mapping[str, Array]) -> Step:
        decoding = self._decoding
        log_probabilities = outputs[decoding.log_probabilities]  # (slots, tokens)
        log_probabilities[:, [decoding.padding, decoding.begin]] = -np.inf
        tokens = log_probabilities.argmax(axis=1)  # (slots,)
        values = log_probabilities[np.arange(len(tokens)), tokens]  # (slots,)
        attention = outputs[decoding.attention] if decoding.attention else None
        return Step(log_probabilities, tokens.tolist(), values.tolist(), attention)

    def _advance(
        self, step: Step, outputs: Mapping[str, Array]
    ) -> tuple[list[_Active], dict[Row, Exception]]:
        """Tell every search of a step: those that are done, and rows that cannot go on."""
        done: list[_Active] = []
        failed: dict[Row, Exception] = {}
        for active in self._active:
            try:
                move = active.searching.advance(step, active.at)
            except Exception as error:  # noqa: BLE001 - no probabilities, or a caller who cannot be told: one row's alone
                failed[active.row] = error
                continue
            if move is None:
                done.append(active)
            elif move is not LIKELIEST:
                parents = [active.at[parent] for parent in move.parents]
                self._slots.redirect(active.at, move.tokens, parents, outputs)
        return done, failed

    def _leave(self, gone: Sequence[_Active]) -> None:
        if not gone:
            return
        leaving = set(gone)
        self._active = [each for each in self._active if each not in leaving]
        for active in gone:
            # From the back: a slot that moves is never one of those still to be freed here.
            for slot in sorted(active.at, reverse=True):
                last = self._slots.leave(slot)
                moved = self._by_slot.pop()
                if slot != last:
                    self._by_slot[slot] = moved
                    moved.at[moved.at.index(last)] = slot
        self._slots.tighten()


def _stacked(
    rows: Sequence[Row], padding: Mapping[str, int], lengths: str | None
) -> dict[str, Array]:
    """The encoder's inputs of some rows, the shorter ones filled up to the longest."""
    longest = max(row.length for row in rows)
    inputs = {}
    for name, first in rows[0].inputs.items():
        values = [row.inputs[name] for row in rows]
        if name not in padding:
            inputs[name] = np.stack(values)
            continue
        batch = np.full((len(rows), longest, *first.shape[1:]), padding[name], first.dtype)
        for place, value in enumerate(values):
            batch[place, : len(value)] = value
        inputs[name] = batch
    if lengths is not None:
        inputs[lengths] = np.array([row.length for row in rows])
    return inputs
