"""The rows that are decoded together, in arrays that stay where they are. Pure: arrays in, arrays out.

Rules:
- Rows lie in slots 0 to `used`, without a gap, so that a step reads the first part of each array as it is.
- A row that leaves is replaced by the last one: one row is copied, the others stay.
- All rows are padded to one time, a little more than the longest needs. Only when that changes is everything laid
  out anew, into one of two stores that take turns.
- The stores never shrink. Each is at most as large as all slots with the longest row there was, which is at most the
  contract's maximum of the padded axis.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.decoding import Decoding

Array = NDArray[Any]

# Measured: a few moments more cost attention less than laying all out anew costs.
_TIME_STEP = 8
# Laid out anew for less time only if that saves half of it.
_WORTH = 0.5


@dataclass(frozen=True, slots=True)
class Layout:
    """What the decoder reads, and where it comes from.

    Attributes:
        decoding: the contract's word on the pair.
        padding: of inputs with a time axis, which is axis 1, what fills it up.
    """

    decoding: Decoding
    padding: Mapping[str, int]


class _Store:
    """The values of one input of the decoder, for every slot.

    Args:
        first: what the encoder gave for some row, (time, …) or (…): the shape of all.
        capacity: how many slots.
        padding: of the time; None if it has none.
    """

    def __init__(self, first: Array, capacity: int, padding: int | None) -> None:
        self._dtype = first.dtype
        self._rest = first.shape if padding is None else first.shape[1:]
        self._capacity = capacity
        self._padding = padding
        self._flat = [np.empty(0, self._dtype), np.empty(0, self._dtype)]
        self.array = self._view(0)

    def _view(self, time: int) -> Array:
        """The other of the two flat stores as (capacity, time, …)."""
        shape = (self._capacity, *(() if self._padding is None else (time,)), *self._rest)
        size = math.prod(shape)
        if len(self._flat[1]) < size:
            self._flat[1] = np.empty(size, self._dtype)
        self._flat.reverse()
        return self._flat[0][:size].reshape(shape)

    def lay_out(self, time: int, used: int) -> None:
        """Give every row so much time; what one does not need may be cut."""
        if self._padding is None:
            return
        before, self.array = self.array, self._view(time)
        kept = min(time, before.shape[1])
        self.array[:used, :kept] = before[:used, :kept]
        self.array[:used, kept:] = self._padding

    def put(self, slot: int, value: Array) -> None:
        """Write one row's values."""
        if self._padding is None:
            self.array[slot] = value
            return
        self.array[slot, : len(value)] = value
        self.array[slot, len(value) :] = self._padding


class Slots:
    """Places for so many rows.

    Args:
        layout: of the pair.
        capacity: how many slots.
    """

    def __init__(self, layout: Layout, capacity: int) -> None:
        self._decoding = layout.decoding
        self._padding = layout.padding
        self.capacity = capacity
        self.used = 0
        self.time = 0
        self._stores: dict[str, _Store] = {}
        self._previous = np.zeros(capacity, np.int64)
        self._lengths = np.zeros(capacity, np.int64)

    @property
    def free(self) -> int:
        """How many more rows there is room for."""
        return self.capacity - self.used

    def place(self, memory: Mapping[str, Array], length: int, count: int) -> list[int]:
        """Put a row into `count` slots, each with its own copy.

        Args:
            memory: what the encoder gave for it, by input of the decoder: (time, …) or (…).
            length: of its source.
            count: at most as many as are `free`.

        Raises:
            Exception: there is no memory for it, or it has another form than the rows before; no slot is taken.
        """
        if length > self.time:
            self._lay_out(_rounded(length))
        slots = list(range(self.used, self.used + count))
        for name, value in memory.items():
            store = self._stores.get(name) or self._add(name, value)
            for slot in slots:
                store.put(slot, value)
        self._previous[slots] = self._decoding.begin
        self._lengths[slots] = length
        self.used += count
        return slots

    def leave(self, slot: int) -> int:
        """Free a slot; returns the one whose row now stands there, itself if it was the last."""
        last = self.used - 1
        if slot != last:
            for store in self._stores.values():
                store.array[slot] = store.array[last]
            self._previous[slot] = self._previous[last]
            self._lengths[slot] = self._lengths[last]
        self.used = last
        return last

    def tighten(self) -> None:
        """Lay out anew if the longest row left needs far less time; to be called when rows have left."""
        wanted = _rounded(int(self._lengths[: self.used].max())) if self.used else 0
        if wanted <= _WORTH * self.time:
            self._lay_out(wanted)

    def inputs(self) -> dict[str, Array]:
        """What the decoder reads at the next step, of the slots in use."""
        inputs = {name: store.array[: self.used] for name, store in self._stores.items()}
        inputs[self._decoding.previous] = self._previous[: self.used]
        if self._decoding.lengths is not None:
            inputs[self._decoding.lengths] = self._lengths[: self.used]
        return inputs

    def go_on(self, tokens: Array, outputs: Mapping[str, Array]) -> None:
        """Every slot goes on with its token and with the state that the step left in it."""
        self._previous[: self.used] = tokens
        for name, output in self._decoding.from_step.items():
            self._stores[name].array[: self.used] = outputs[output]

    def redirect(
        self,
        slots: Sequence[int],
        tokens: Sequence[int],
        parents: Sequence[int],
        outputs: Mapping[str, Array],
    ) -> None:
        """Some slots go on otherwise: with these tokens, after the states of these slots."""
        self._previous[slots] = tokens
        for name, output in self._decoding.from_step.items():
            self._stores[name].array[slots] = outputs[output][parents]

    def _add(self, name: str, first: Array) -> _Store:
        store = _Store(first, self.capacity, self._padding.get(name))
        store.lay_out(self.time, 0)
        self._stores[name] = store
        return store

    def _lay_out(self, time: int) -> None:
        for store in self._stores.values():
            store.lay_out(time, self.used)
        self.time = time


def _rounded(length: int) -> int:
    return -(-length // _TIME_STEP) * _TIME_STEP
