"""To what size rows of unequal length are filled up, and along which axes. Pure.

A batch is as long as its longest row, rounded up to one of few sizes: memory and kernels that one batch
needed then serve the next. Below 16 a size is exact, above it at most an eighth is added.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from weir.bundle.contract import Contract
from weir.server.runtime.signature import TensorSpec

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Padding:
    """A padded axis, and where it lies.

    Attributes:
        maximum: the most entries of a row.
        inputs: the axis's positions in each input that carries it.
        values: what fills those inputs up.
        outputs: the axis's positions in each output that is cut back along it.
        lengths: the input [batch] of the rows' lengths, or None.
    """

    maximum: int
    inputs: Mapping[str, tuple[int, ...]]
    values: Mapping[str, int]
    outputs: Mapping[str, tuple[int, ...]]
    lengths: str | None

    def size_of(self, inputs: Mapping[str, Array]) -> int:
        """How long the axis is in these tensors."""
        name, positions = next(iter(self.inputs.items()))
        size: int = inputs[name].shape[positions[0]]
        return size

    def padded_size(self, sizes: Iterable[int]) -> int:
        """How long it is in a batch of requests of these sizes."""
        return min(rounded_up(max(sizes)), self.maximum)


def rounded_up(length: int) -> int:
    """The least size that is not below a length of 1 or more: one of eight to each power of two."""
    step = 1 << max(0, length.bit_length() - 4)
    return -(-length // step) * step


def paddings_of(
    contract: Contract | None, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]
) -> tuple[Padding, ...]:
    """Every padded axis of a graph that the contract fits (`sequences.rules_of`)."""
    if contract is None:
        return ()
    inputs, outputs = list(inputs), list(outputs)
    return tuple(
        Padding(
            maximum=padded.maximum,
            inputs=_positions(axis, inputs),
            values=padded.padding,
            outputs=_positions(axis, outputs),
            lengths=padded.lengths,
        )
        for axis, padded in contract.padded_axes.items()
    )


def _positions(axis: str, specs: Iterable[TensorSpec]) -> dict[str, tuple[int, ...]]:
    return {
        spec.name: tuple(place for place, each in enumerate(spec.axes) if each == axis)
        for spec in specs
        if axis in spec.axes
    }
