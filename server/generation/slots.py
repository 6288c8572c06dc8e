"""Slots: the state of rows that are decoded together, in arrays that stay in place. Pure.

Rules:
- Rows occupy slots 0 to `used` without a gap, so that a step reads the first part of each array.
- The last row moves into the slot of a row that leaves: one row is copied, the others stay.
- All rows are padded to one time, slightly above the longest row's. Only when it changes are arrays
  laid out again, into one of two buffers that alternate.
- Buffers never shrink. Each holds at most all slots with the longest row so far, which is at most
  the contract's maximum of the padded axis.
- With a `Device` the step's inputs lie in its memory, and the states that a step returns stay there
  until rows come, leave or are redirected. Only then are they copied to the arrays and back.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.decoding import Decoding
from weir.server.runtime.io_binding import Device, DeviceTensor

Array = NDArray[Any]

# Measured: attention over a few more entries costs less than laying out the arrays again.
_TIME_STEP = 8
# Laid out again for a shorter time only if that saves half of it.
_SHRINK_RATIO = 0.5


@dataclass(frozen=True, slots=True)
class Layout:
    """The decoder's inputs and where they come from.

    Attributes:
        padding: the padding value of each input with a time axis, which is axis 1.
    """

    decoding: Decoding
    padding: Mapping[str, int]


class _SlotArray:
    """The values of one input of the decoder, for every slot.

    Args:
        first: the encoder's output for a row, (time, …) or (…); all rows have this shape.
        padding: of the time axis; None without one.

    Attributes:
        data: the values; those of a step on a device are not copied to it until `to_host`.
        on_device: the values of the slots in use, on the device.
        is_ahead: whether `on_device` has values that `data` lacks.
    """

    def __init__(self, first: Array, capacity: int, padding: int | None) -> None:
        self._dtype = first.dtype
        self._rest = first.shape if padding is None else first.shape[1:]
        self._capacity = capacity
        self._padding = padding
        self._buffers = [np.empty(0, self._dtype), np.empty(0, self._dtype)]
        self.data = self._view(0)
        self.on_device: DeviceTensor | None = None
        self.is_ahead = False

    def _view(self, time: int) -> Array:
        """The other of the two buffers as (capacity, time, …)."""
        shape = (self._capacity, *(() if self._padding is None else (time,)), *self._rest)
        size = math.prod(shape)
        if len(self._buffers[1]) < size:
            self._buffers[1] = np.empty(size, self._dtype)
        self._buffers.reverse()
        return self._buffers[0][:size].reshape(shape)

    def lay_out(self, time: int, used: int) -> None:
        """Change the length of the time axis; padding may be cut off."""
        if self._padding is None:
            return
        before, self.data = self.data, self._view(time)
        kept = min(time, before.shape[1])
        self.data[:used, :kept] = before[:used, :kept]
        self.data[:used, kept:] = self._padding

    def put(self, slot: int, value: Array) -> None:
        """Write one row's values."""
        if self._padding is None:
            self.data[slot] = value
            return
        self.data[slot, : len(value)] = value
        self.data[slot, len(value) :] = self._padding


class Slots:
    """The slots of a decoder batch."""

    def __init__(self, layout: Layout, capacity: int) -> None:
        self._decoding = layout.decoding
        self._padding = layout.padding
        self.capacity = capacity
        self.used = 0
        self.time = 0
        self._arrays: dict[str, _SlotArray] = {}
        self._previous = np.zeros(capacity, np.int64)
        self._lengths = np.zeros(capacity, np.int64)

    @property
    def free(self) -> int:
        """Number of free slots."""
        return self.capacity - self.used

    def place(self, memory: Mapping[str, Array], length: int, count: int) -> list[int]:
        """Put a row into `count` slots, each with its own copy.

        Args:
            memory: the encoder's outputs for it, by input of the decoder: (time, …) or (…).
            count: at most `free`.

        Raises:
            Exception: memory is exhausted, or the shape differs from other rows; no slot is taken.
        """
        self.to_host()
        if length > self.time:
            self._lay_out(_rounded(length))
        slots = list(range(self.used, self.used + count))
        for name, value in memory.items():
            if name not in self._arrays:
                self._arrays[name] = _SlotArray(value, self.capacity, self._padding.get(name))
                self._arrays[name].lay_out(self.time, 0)
            array = self._arrays[name]
            for slot in slots:
                array.put(slot, value)
        self._previous[slots] = self._decoding.begin
        self._lengths[slots] = length
        self.used += count
        return slots

    def leave(self, slot: int) -> int:
        """Free a slot; returns the slot whose row moved there, or itself if it was the last."""
        self.to_host()
        last = self.used - 1
        if slot != last:
            for array in self._arrays.values():
                array.data[slot] = array.data[last]
            self._previous[slot] = self._previous[last]
            self._lengths[slot] = self._lengths[last]
        self.used = last
        return last

    def shrink(self) -> None:
        """Shorten the time axis if the longest row needs far less; called after rows have left."""
        wanted = _rounded(int(self._lengths[: self.used].max())) if self.used else 0
        if wanted <= _SHRINK_RATIO * self.time:
            self._lay_out(wanted)

    def inputs(self) -> dict[str, Array]:
        """The decoder's inputs for the next step, of the slots in use."""
        arrays = {name: array.data[: self.used] for name, array in self._arrays.items()}
        return {**arrays, **self._counts()}

    def bound_inputs(self, device: Device) -> dict[str, Array | DeviceTensor]:
        """The same inputs, on the device: values that are not there yet are copied to it."""
        inputs: dict[str, Array | DeviceTensor] = {}
        for name, array in self._arrays.items():
            if array.on_device is None:
                array.on_device = device.place(array.data[: self.used])
            inputs[name] = array.on_device
        return {**self._counts(), **inputs}

    def advance(self, tokens: Array, outputs: Mapping[str, Array | DeviceTensor]) -> None:
        """Give every slot its next token, and the state that the step returned for it."""
        self._previous[: self.used] = tokens
        for name, output in self._decoding.from_step.items():
            array, state = self._arrays[name], outputs[output]
            if isinstance(state, np.ndarray):
                array.data[: self.used] = state
            else:
                array.on_device, array.is_ahead = state, True

    def redirect(self, slots: Sequence[int], tokens: Sequence[int], parents: Sequence[int]) -> None:
        """Give some slots other tokens, and the states of other slots, all after `advance`."""
        self._previous[slots] = tokens
        self.to_host(self._decoding.from_step)
        for name in self._decoding.from_step:
            data = self._arrays[name].data
            data[slots] = data[parents]

    def to_host(self, names: Collection[str] | None = None) -> None:
        """Copy values that only the device has to the arrays, and free all tensors on the device.

        Raises:
            Exception: of the device. Values that only the device had are lost; the next call does
                not raise.
        """
        arrays = [self._arrays[name] for name in (self._arrays if names is None else names)]
        ahead = [(array, array.on_device) for array in arrays if array.is_ahead]
        for array in arrays:
            array.on_device, array.is_ahead = None, False
        for array, tensor in ahead:
            if tensor is not None:
                array.data[: self.used] = tensor.numpy()

    def _counts(self) -> dict[str, Array]:
        """Previous tokens and lengths: one number for each row, always in the host's memory."""
        counts = {self._decoding.previous: self._previous[: self.used]}
        if self._decoding.lengths is not None:
            counts[self._decoding.lengths] = self._lengths[: self.used]
        return counts

    def _lay_out(self, time: int) -> None:
        self.to_host()
        for array in self._arrays.values():
            array.lay_out(time, self.used)
        self.time = time


def _rounded(length: int) -> int:
    return -(-length // _TIME_STEP) * _TIME_STEP
