"""Sequence rules: a contract's ranges of values and lengths, checked for each request. Pure.

Rules:
- The number of entries of an axis is a matter of shapes: `signature` checks it before an element is
  read.
- Values are checked here before a request is queued. In a batch the CPU would refuse an id beyond
  the vocabulary, and CUDA would read zeros for it.
- A request without an input of lengths has full rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Contract
from weir.bundle.sequences import PaddedAxis, ValueRange
from weir.protocol.datatypes import DATATYPES
from weir.server.errors import InvalidRequest, ModelLoadError
from weir.server.runtime import collate
from weir.server.runtime.collate import LengthInput
from weir.server.runtime.signature import Axis, TensorSpec

Array = NDArray[Any]
Inputs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class Lengths:
    """An input of lengths, or an attention mask, and the axis along which they count.

    Attributes:
        counted: another input that carries the axis.
        position: the axis's position in that input.
    """

    length_input: LengthInput
    axis: str
    counted: str
    position: int
    dtype: np.dtype[Any]

    @property
    def name(self) -> str:
        """The input's name."""
        return self.length_input.name


@dataclass(frozen=True, slots=True)
class SequenceRules:
    """The rules for the values of one model's requests; most models have none.

    Attributes:
        maxima: the most entries along each padded axis, by its name.
        lengths: inputs that count the entries of each row; a request may leave them out.
    """

    maxima: Mapping[str, int]
    ranges: Mapping[str, ValueRange]
    lengths: tuple[Lengths, ...]

    def complete(self, inputs: dict[str, Array]) -> None:
        """Add the lengths that a request left out: its rows are full."""
        for each in self.lengths:
            if each.name not in inputs:
                shape = inputs[each.counted].shape
                inputs[each.name] = each.length_input.full(
                    shape[0], shape[each.position], each.dtype
                )

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Refuse values that have no meaning for the model."""
        for name, bounds in self.ranges.items():
            _check_range(name, inputs[name], bounds.minimum, bounds.maximum, "values")
        for each in self.lengths:
            if each.length_input.is_mask:
                _check_mask(each.name, inputs[each.name])
                continue
            size = inputs[each.counted].shape[each.position]
            _check_range(each.name, inputs[each.name], 1, size, "lengths")

    def own_part(self, axes: Sequence[Axis], array: Array, inputs: Mapping[str, Array]) -> Array:
        """An output with zeros past each row's end, where values have no meaning.

        Args:
            axes: of the output, in the graph.
            array: (rows, …).
        """
        for each in self.lengths:
            if each.axis not in axes:
                continue
            position = axes.index(each.axis)
            is_own = (
                np.arange(array.shape[position]) < each.length_input.lengths(inputs)[:, None]
            )  # (rows, entries)
            others = [other for other in range(1, array.ndim) if other != position]
            array = np.where(np.expand_dims(is_own, others), array, array.dtype.type(0))
        return array


def rules_of(contract: Contract | None, inputs: Inputs) -> SequenceRules:
    """The contract's rules, once they fit the graph.

    Raises:
        ModelLoadError: they name an input, an axis or a datatype that the graph does not have.
    """
    if contract is None:
        return SequenceRules({}, {}, ())
    for name in contract.value_ranges:
        _check_integers(f"value_ranges: {name}", inputs.get(name))
    lengths = []
    for axis, padded in contract.padded_axes.items():
        _check_carriers(axis, padded, inputs)
        length_input = collate.length_input_of(padded)
        if length_input is not None:
            lengths.append(_lengths(axis, padded, length_input, inputs, contract.batch_axis))
    maxima = {axis: padded.maximum for axis, padded in contract.padded_axes.items()}
    return SequenceRules(maxima, contract.value_ranges, tuple(lengths))


def _lengths(
    axis: str, padded: PaddedAxis, length_input: LengthInput, inputs: Inputs, batch_axis: str | None
) -> Lengths:
    spec = inputs.get(length_input.name)
    key = "mask" if length_input.is_mask else "lengths"
    # A mask may be of booleans, or of floats that are multiplied.
    if spec is None or not length_input.is_mask:
        _check_integers(f"padded_axes: {axis}: {key} {length_input.name!r}", spec)
    expected = (batch_axis, axis) if length_input.is_mask else (batch_axis,)
    if spec is None or spec.axes != expected:
        got = "none" if spec is None else list(spec.axes)
        raise ModelLoadError(
            f"padded_axes: {axis}: expected {key} [{', '.join(map(str, expected))}], got {got}"
        )
    counted = next(name for name in padded.padding if name != length_input.name)
    return Lengths(
        length_input=length_input,
        axis=axis,
        counted=counted,
        position=inputs[counted].axes.index(axis),
        dtype=DATATYPES[spec.datatype].dtype,
    )


def _check_carriers(axis: str, padded: PaddedAxis, inputs: Inputs) -> None:
    carriers = sorted(name for name, spec in inputs.items() if axis in spec.axes)
    if carriers != sorted(padded.padding):
        raise ModelLoadError(
            f"padded_axes: {axis}: expected padding for the inputs with that axis, {carriers}, "
            f"got it for {sorted(padded.padding)}"
        )
    for name, value in padded.padding.items():
        dtype = DATATYPES[inputs[name].datatype].dtype
        if dtype.kind in "iu":
            bounds = np.iinfo(dtype.str)
            if not bounds.min <= value <= bounds.max:
                raise ModelLoadError(
                    f"padded_axes: {axis}: padding of {name!r}: expected {dtype}, got {value}"
                )


def _check_integers(where: str, spec: TensorSpec | None) -> None:
    if spec is None or DATATYPES[spec.datatype].dtype.kind not in "iu":
        got = "none" if spec is None else spec.datatype
        raise ModelLoadError(f"{where}: expected an input of integers, got {got}")


def _check_mask(name: str, array: Array) -> None:
    if not ((array == 0) | (array == 1)).all():
        raise InvalidRequest(f"input {name!r}: expected a mask of 0 and 1, got another value")
    if not array.any(axis=1).all():
        raise InvalidRequest(f"input {name!r}: expected a 1 in each row of the mask, got none")


def _check_range(name: str, array: Array, least: int, most: int, what: str) -> None:
    if not array.size:
        return
    for value in (int(array.min()), int(array.max())):
        if not least <= value <= most:
            raise InvalidRequest(
                f"input {name!r}: expected {what} from {least} to {most}, got {value}"
            )
