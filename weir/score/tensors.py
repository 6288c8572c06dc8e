"""Tensors of a part: whole columns, or the inputs of one row."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from weir.score import columns as cells
from weir.score.binding import Binding
from weir.score.rows import Part, one_array
from weir.server.runtime.signature import TensorSpec

Array = NDArray[Any]


class PartTensors:
    """The bound columns of a part, as tensors of a model.

    Args:
        specs: the tensors that have a column.
    """

    def __init__(self, part: Part, specs: Sequence[TensorSpec], binding: Binding) -> None:
        self._specs = specs
        self._columns: Mapping[str, pa.Array] = {
            spec.name: one_array(part, binding.columns[spec.name]) for spec in specs
        }

    def blocks(self) -> dict[str, Array] | None:
        """Each tensor with all rows; None if a row needs a look of its own."""
        blocks = {}
        for spec in self._specs:
            axes = spec.axes[1:]
            fixed = [axis for axis in axes if isinstance(axis, int)]
            if len(fixed) < len(axes) or not spec.has_shape:
                return None
            found = cells.block(self._columns[spec.name], spec, fixed)
            if found is None:
                return None
            blocks[spec.name] = found
        return blocks

    def row(self, position: int) -> dict[str, Array]:
        """The tensors of one row, (1, …) each.

        Raises:
            ValueError: a cell does not fit; the message names the tensor.
        """
        return {spec.name: self._cell(spec, position) for spec in self._specs}

    def _cell(self, spec: TensorSpec, position: int) -> Array:
        try:
            return cells.cell(self._columns[spec.name], position, spec, spec.axes[1:])
        except ValueError as error:
            raise ValueError(f"input {spec.name!r}: {error}") from None
