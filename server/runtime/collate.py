"""Collate: requests → one padded batch → each request's own part again. Pure.

Rules:
- Rows lie on axis 0 of every tensor of a model that has rows (`signature`).
- Along a padded axis every input is padded to the batch's size, also that of a request that runs
  alone. Each request brings its lengths, so a row's end is known.
- A batch is as long as its longest row, rounded up to one of few sizes: memory and kernels that one
  batch needed then serve the next. Below 16 a size is exact, above it at most an eighth is added.
- An output that carries a padded axis is cut back along it to the size of the request's own inputs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from weir.bundle.contract import Contract
from weir.bundle.escaping import short_repr
from weir.bundle.sequences import PaddedAxis
from weir.server.runtime.signature import TensorSpec

Array = NDArray[Any]


class RowCountError(ValueError):
    """An output has another number of rows than the batch, so it cannot be split."""


@dataclass(frozen=True, slots=True)
class LengthInput:
    """An input that gives the length of each row along a padded axis.

    Attributes:
        name: of lengths [batch], or of an attention mask [batch, axis].
        is_mask: whether it is a mask: 1 for an entry of the row, 0 for padding.
    """

    name: str
    is_mask: bool = False

    def lengths(self, inputs: Mapping[str, Array]) -> Array:
        """The length of each row (rows,): of a mask, where its last 1 is."""
        array = inputs[self.name]
        if not self.is_mask:
            return array
        lengths: Array = array.shape[1] - np.argmax(array[:, ::-1] != 0, axis=1)
        return lengths

    def full(self, rows: int, size: int, dtype: DTypeLike) -> Array:
        """Lengths, or the mask, of rows without padding."""
        return np.ones((rows, size), dtype) if self.is_mask else np.full(rows, size, dtype)


def length_input_of(padded: PaddedAxis) -> LengthInput | None:
    """The input that gives the rows' lengths along a padded axis."""
    if padded.length_input is None:
        return None
    return LengthInput(padded.length_input, is_mask=padded.mask is not None)


@dataclass(frozen=True, slots=True)
class Padding:
    """A padded axis, and its positions in the tensors.

    Attributes:
        maximum: the most entries of a row.
        inputs: the axis's positions in each input that carries it.
        values: the padding value of each of those inputs.
        outputs: the axis's positions in each output that is cut back along it.
        length_input: gives the rows' lengths; None if the padding does.
    """

    maximum: int
    inputs: Mapping[str, tuple[int, ...]]
    values: Mapping[str, int]
    outputs: Mapping[str, tuple[int, ...]]
    length_input: LengthInput | None

    def size_of(self, inputs: Mapping[str, Array]) -> int:
        """The axis's size in these tensors."""
        name, positions = next(iter(self.inputs.items()))
        size: int = inputs[name].shape[positions[0]]
        return size

    def padded_size(self, sizes: Iterable[int]) -> int:
        """The axis's size in a batch of requests of these sizes."""
        return min(rounded_up(max(sizes)), self.maximum)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Entries of a batch along its first axis with lengths.

    Attributes:
        real: within the rows' lengths.
        computed: padding included.
    """

    real: int = 0
    computed: int = 0


def paddings_of(
    contract: Contract | None, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]
) -> tuple[Padding, ...]:
    """Every padded axis of a graph that the contract fits (`sequence_rules.rules_of`)."""
    if contract is None:
        return ()
    inputs, outputs = list(inputs), list(outputs)
    return tuple(
        Padding(
            maximum=padded.maximum,
            inputs=_positions(axis, inputs),
            values=padded.padding,
            outputs=_positions(axis, outputs),
            length_input=length_input_of(padded),
        )
        for axis, padded in contract.padded_axes.items()
    )


def rounded_up(length: int) -> int:
    """The least size not below a length of 1 or more; there are eight sizes to a power of two."""
    step = 1 << max(0, length.bit_length() - 4)
    return -(-length // step) * step


def join(
    requests: Sequence[Mapping[str, Array]], paddings: Sequence[Padding] = ()
) -> dict[str, Array]:
    """The tensors of several requests, one below the other; arrays are copied only where needed."""
    if not paddings:
        if len(requests) == 1:
            return dict(requests[0])
        return {name: np.concatenate([inputs[name] for inputs in requests]) for name in requests[0]}
    sizes = [padding.padded_size(map(padding.size_of, requests)) for padding in paddings]
    joined = {}
    for name in requests[0]:
        parts = [inputs[name] for inputs in requests]
        shape, fill = list(parts[0].shape), 0
        for padding, size in zip(paddings, sizes, strict=True):
            for position in padding.inputs.get(name, ()):
                shape[position], fill = size, padding.values[name]
        joined[name] = _stack(parts, shape[1:], fill)
    return joined


def split(
    outputs: Mapping[str, Array],
    requests: Sequence[Mapping[str, Array]],
    paddings: Sequence[Padding] = (),
) -> list[dict[str, Array]]:
    """Each request's part of a batch's outputs, as views.

    Args:
        outputs: by name, each (rows of all requests, …).

    Raises:
        RowCountError: an output has another number of rows than the batch.
        ValueError: an output has another size than the batch along a padded axis.
    """
    rows = [len(next(iter(inputs.values()))) for inputs in requests]
    check_rows(outputs, sum(rows))
    named = list(outputs.items())
    parts = []
    start = 0
    for count in rows:
        end = start + count
        parts.append({name: array[start:end] for name, array in named})
        start = end
    for padding in paddings:
        sizes = [padding.size_of(inputs) for inputs in requests]
        padded_size = padding.padded_size(sizes)
        for name, positions in padding.outputs.items():
            for position in positions:
                _check({name: outputs[name]}, position, padded_size, f"entries on axis {position}")
            for part, size in zip(parts, sizes, strict=True):
                part[name] = cut(part[name], positions, size)
    return parts


def check_rows(outputs: Mapping[str, Array], rows: int) -> None:
    """Raise RowCountError unless every output has so many rows."""
    try:
        _check(outputs, 0, rows, "rows")
    except ValueError as error:
        raise RowCountError(str(error)) from None


def cut(array: Array, positions: Sequence[int], size: int) -> Array:
    """The first entries along some axes, as a view."""
    for position in positions:
        array = array[(slice(None),) * position + (slice(size),)]
    return array


def count_tokens(batch: Mapping[str, Array], paddings: Sequence[Padding]) -> Tokens:
    """The tokens of a joined batch; zero for a model without lengths."""
    for padding in paddings:
        if padding.length_input is not None:
            lengths = padding.length_input.lengths(batch)
            return Tokens(int(lengths.sum()), len(lengths) * padding.size_of(batch))
    return Tokens()


def _positions(axis: str, specs: Iterable[TensorSpec]) -> dict[str, tuple[int, ...]]:
    return {
        spec.name: tuple(position for position, each in enumerate(spec.axes) if each == axis)
        for spec in specs
        if axis in spec.axes
    }


def _stack(parts: Sequence[Array], shape: Sequence[int], fill: int) -> Array:
    """Arrays one below the other, each padded to (rows, *shape)."""
    if all(part.shape[1:] == tuple(shape) for part in parts):
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    stacked = np.full((sum(map(len, parts)), *shape), fill, parts[0].dtype)
    start = 0
    for part in parts:
        own = tuple(map(slice, part.shape[1:]))
        stacked[(slice(start, start + len(part)), *own)] = part
        start += len(part)
    return stacked


def _check(outputs: Mapping[str, Array], position: int, expected: int, what: str) -> None:
    for name, array in outputs.items():
        if array.shape[position : position + 1] != (expected,):
            got = array.shape[position] if array.ndim > position else "none"
            raise ValueError(f"output {short_repr(name)}: expected {expected} {what}, got {got}")
