"""Slots against plain lists: every row keeps its values while others come and go."""

import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.server.generation import toys
from weir.server.generation.slots import Slots

Array = NDArray[Any]

CAPACITY = 5

plans = st.lists(
    st.one_of(
        st.tuples(st.just("place"), st.integers(1, 40), st.integers(1, CAPACITY)),
        st.tuples(st.just("leave"), st.integers(0, CAPACITY - 1)),
        st.tuples(st.just("tighten")),
        st.tuples(st.just("go on"), st.integers(0, 999)),
        st.tuples(st.just("redirect"), st.permutations(range(CAPACITY)), st.integers(1, CAPACITY)),
    ),
    max_size=40,
)


class Model:
    """The same slots as plain lists."""

    def __init__(self, *, on_device: bool = False) -> None:
        self.slots = Slots(toys.LAYOUT, CAPACITY)
        self.device = toys.FakeDevice(lambda _: {}) if on_device else None
        self.rows: list[dict[str, Any]] = []
        self.count = 0

    def place(self, length: int, count: int) -> None:
        count = min(count, self.slots.free)
        self.count += 1
        memory = np.arange(length, dtype=np.float64)[:, None] + 100 * self.count
        state = np.array([self.count])

        placed = self.slots.place({"memory": memory, "state": state}, length, count)

        assert placed == list(range(len(self.rows), len(self.rows) + count))
        row = {"memory": memory, "state": state, "length": length, "previous": toys.BEGIN}
        self.rows += [dict(row) for _ in range(count)]

    def leave(self, slot: int) -> None:
        if slot >= len(self.rows):
            return
        assert self.slots.leave(slot) == len(self.rows) - 1
        last = self.rows.pop()
        if slot < len(self.rows):
            self.rows[slot] = last

    def go_on(self, seed: int) -> None:
        if not self.rows:
            return
        tokens, states = self._step(seed)
        place = self.device.place if self.device else lambda array: array
        self.slots.advance(tokens, {"next_state": place(states)})
        for row, token, state in zip(self.rows, tokens, states, strict=True):
            row |= {"previous": token, "state": state}

    def redirect(self, order: list[int], count: int, seed: int = 5) -> None:
        slots = [slot for slot in order if slot < len(self.rows)][:count]
        parents = slots[::-1]
        if not slots:
            return
        tokens, _ = self._step(seed)
        self.slots.redirect(slots, tokens[: len(slots)].tolist(), parents)
        states = [row["state"] for row in self.rows]
        for slot, token, parent in zip(slots, tokens, parents, strict=False):
            self.rows[slot] |= {"previous": token, "state": states[parent]}

    def _step(self, seed: int) -> tuple[Array, Array]:
        generator = np.random.default_rng(seed)
        count = len(self.rows)
        return generator.integers(1, 9, count), generator.integers(0, 99, (count, 1))

    def _inputs(self) -> dict[str, Array]:
        if self.device is None:
            return self.slots.inputs()
        bound = self.slots.bound_inputs(self.device)
        return {
            name: each if isinstance(each, np.ndarray) else each.numpy()
            for name, each in bound.items()
        }

    def check(self) -> None:
        assert (self.slots.used, self.slots.free) == (len(self.rows), CAPACITY - len(self.rows))
        if not self.rows:
            return
        inputs = self._inputs()
        assert self.slots.time >= max(row["length"] for row in self.rows)
        assert inputs["previous"].tolist() == [row["previous"] for row in self.rows]
        assert inputs["lengths"].tolist() == [row["length"] for row in self.rows]
        assert inputs["state"].tolist() == [list(row["state"]) for row in self.rows]
        for slot, row in enumerate(self.rows):
            own, rest = np.split(inputs["memory"][slot], [row["length"]])
            assert own.tolist() == row["memory"].tolist()
            assert (rest == toys.MEMORY_PAD).all()


@pytest.mark.parametrize("on_device", [False, True], ids=["arrays", "device"])
@given(plan=plans)
def test_every_row_keeps_its_values(plan: list[tuple[Any, ...]], *, on_device: bool) -> None:
    model = Model(on_device=on_device)

    for kind, *arguments in plan:
        match kind:
            case "place":
                model.place(*arguments)
            case "leave":
                model.leave(*arguments)
            case "tighten":
                model.slots.shrink()
            case "go on":
                model.go_on(*arguments)
            case "redirect":
                model.redirect(*arguments)
        model.check()


def memory_of(length: int) -> Mapping[str, Array]:
    return {"memory": np.zeros((length, 1)), "state": np.zeros(1, np.int64)}


def address(slots: Slots) -> int:
    pointer: int = slots.inputs()["memory"].ctypes.data
    return pointer


def test_arrays_stay_in_place_while_rows_come_and_go() -> None:
    slots = Slots(toys.LAYOUT, 4)
    slots.place(memory_of(8), 8, 2)
    before = address(slots)

    for length in (1, 8, 3):
        slots.place(memory_of(length), length, 1)
        slots.advance(np.zeros(3, np.int64), {"next_state": np.ones((3, 1))})
        slots.leave(1)
        slots.shrink()

    assert address(slots) == before


def test_step_reads_the_arrays_without_a_copy() -> None:
    slots = Slots(toys.LAYOUT, 4)
    slots.place(memory_of(8), 8, 3)

    inputs = slots.inputs()

    for name in ("memory", "state"):
        assert inputs[name].base is not None and inputs[name].flags.c_contiguous
        assert np.shares_memory(inputs[name], slots.inputs()[name])


@pytest.mark.parametrize(("left", "time"), [(40, 40), (32, 40), (17, 40), (16, 16), (5, 8)])
def test_time_axis_shrinks_only_if_that_saves_half(left: int, time: int) -> None:
    slots = Slots(toys.LAYOUT, 2)
    slots.place(memory_of(left), left, 1)
    slots.place(memory_of(40), 40, 1)

    slots.leave(1)
    slots.shrink()

    assert slots.time == time


def test_buffers_are_bounded_by_the_longest_row_so_far() -> None:
    """Two buffers each, neither larger than all slots with the longest row."""
    longest, width, capacity = 64, 1000, 3
    slots, generator = Slots(toys.LAYOUT, capacity), np.random.default_rng(0)
    lengths = [longest, *generator.integers(1, longest + 1, 300).tolist()]
    tracemalloc.start()

    for length in lengths:
        slots.place({"memory": np.zeros((length, width)), "state": np.zeros(1)}, length, 1)
        if slots.used == capacity:
            slots.leave(int(generator.integers(capacity)))
            slots.leave(0)
            slots.shrink()
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    store_bytes = longest * width * capacity * 8
    assert kept_bytes < 2.05 * store_bytes


def test_buffers_that_are_large_enough_alternate() -> None:
    slots, generator = Slots(toys.LAYOUT, 2), np.random.default_rng(0)

    def address_with(length: int) -> int:
        """The address of the array, laid out for one row of this length."""
        slots.place(memory_of(length), length, 1)
        if slots.used > 1:
            slots.leave(0)
        slots.shrink()
        return address(slots)

    for length in (64, 8, 16, 64):  # each store was the larger one once
        address_with(length)
    addresses = {address_with(length) for length in generator.integers(1, 65, 300).tolist()}

    assert len(addresses) == 2


@pytest.mark.parametrize("kind", ["shape", "memory"])
def test_row_that_cannot_be_placed_takes_no_slot(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = Slots(toys.LAYOUT, 3)
    slots.place(memory_of(4), 4, 1)

    def refuse(*_: object) -> None:
        raise MemoryError

    if kind == "shape":
        bad = {"memory": np.zeros((4, 1)), "state": np.zeros((2, 2))}
        with pytest.raises(ValueError, match="broadcast"):
            slots.place(bad, 4, 2)
    else:
        monkeypatch.setattr(np, "empty", refuse)
        with pytest.raises(MemoryError):
            slots.place(memory_of(16), 16, 2)
        monkeypatch.undo()

    assert slots.used == 1
    slots.place(memory_of(16), 16, 2)
    assert slots.inputs()["memory"].shape == (3, 16, 1)
