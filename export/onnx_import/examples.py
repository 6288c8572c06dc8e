"""Example inputs of an imported graph: seeded, of sizes and values that the graph takes.

Rules:

- Golden inputs that were given decide the sizes of free axes, and the distribution of values
  without a range.
- Otherwise sizes and small integers are tried until the graph runs.
- Rows have different lengths along the padded axis. With an input of lengths or a mask, values
  beyond a row's length are random. Without one they are padding, and no other value equals it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.sequences import PaddedAxis
from weir.export import runtime
from weir.export.errors import ExportError
from weir.export.onnx_import.tensor_specs import TensorSpec

Array = NDArray[Any]
Inputs = Mapping[str, Array]

BATCH, TIME = "batch", "time"

_SIZES = (8, 32, 256, 1, 2, 3, 64, 224)
# Least and greatest integer without a range: an id beyond a table is an error.
_INTEGERS = ((0, 3), (0, 1), (1, 2), (1, 1))
_WIDTH = 12
_TEXTS = ("a", "0", "42", "one two")

SCALES = (1.0, 10.0, 1e2, 1e4, 1e6)
"""Deviations of floats to try: the thresholds of a tree may be far from 1."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Distribution of an input's values: uniform between bounds, or normal."""

    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    is_normal: bool = False


@dataclass(frozen=True, slots=True)
class ExampleSampler:
    """Sampler of example inputs.

    Attributes:
        inputs: of the graph, with `BATCH` first if it has rows, and `TIME` where it is padded.
        padded: the padded axis; None: all rows have the same shape.
        distributions: the values of inputs that have a range or were given.
        sizes: of free axes, by input and position.
        free_size: of every other free axis.
        integers: the least and the greatest value of integers without a distribution.
        scale: the deviation of floats without a distribution.
        texts: to choose from.
    """

    inputs: Sequence[TensorSpec]
    padded: PaddedAxis | None = None
    distributions: Mapping[str, Distribution] = field(default_factory=dict)
    sizes: Mapping[tuple[str, int], int] = field(default_factory=dict)
    free_size: int = _SIZES[0]
    integers: tuple[int, int] = _INTEGERS[0]
    scale: float = 1.0
    texts: Sequence[str] = _TEXTS

    @property
    def has_rows(self) -> bool:
        """Whether the first axis is the batch."""
        return all(spec.axes is not None and spec.axes[:1] == (BATCH,) for spec in self.inputs)

    @property
    def width(self) -> int:
        """The usual size of the padded axis."""
        return min(_WIDTH, self.padded.maximum) if self.padded else 0

    def draw(self, rows: int, generator: np.random.Generator, width: int | None = None) -> Inputs:
        """A batch of so many rows; along the padded axis its longest row has `width` entries."""
        width = self.width if width is None else width
        drawn = {
            spec.name: self._values(spec, self._shape(spec, rows, width), generator)
            for spec in self.inputs
        }
        if self.padded is not None:
            lengths = generator.integers(1, width + 1, rows)
            lengths[0] = width
            self._end_rows(drawn, -np.sort(-lengths))
        return drawn

    def rows(self, inputs: Inputs) -> list[Inputs]:
        """The rows of a batch, each cut to its own length; none without a batch axis."""
        if not self.has_rows:
            return []
        count = len(next(iter(inputs.values())))
        lengths = self.lengths(inputs)
        rows: list[Inputs] = []
        for number in range(count):
            row = {name: array[number : number + 1] for name, array in inputs.items()}
            for spec in self.inputs:
                if TIME in (spec.axes or ()):
                    row[spec.name] = cut(row[spec.name], spec.axes, lengths[number])
            rows.append(row)
        return rows

    def lengths(self, inputs: Inputs) -> Sequence[int]:
        """The length of each row of a batch; none without a padded axis."""
        if self.padded is None:
            return [0] * len(next(iter(inputs.values())))
        if self.padded.lengths is not None:
            return [int(length) for length in inputs[self.padded.lengths]]
        if self.padded.mask is not None:
            return [int(length) for length in (inputs[self.padded.mask] != 0).sum(axis=1)]
        ends = [
            _ends(inputs[spec.name], spec, self.padded.padding[spec.name])
            for spec in self.inputs
            if TIME in (spec.axes or ())
        ]
        return [max(1, *row) for row in zip(*ends, strict=True)]

    def _shape(self, spec: TensorSpec, rows: int, width: int) -> tuple[int, ...]:
        named = {BATCH: rows, TIME: width}
        return tuple(
            axis
            if isinstance(axis, int)
            else named.get(str(axis), self.sizes.get((spec.name, place), self.free_size))
            for place, axis in enumerate(spec.axes or ())
        )

    def _values(
        self, spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator
    ) -> Array:
        distribution = self.distributions.get(spec.name)
        if spec.dtype == object:
            return np.array(self.texts, object)[generator.integers(0, len(self.texts), shape)]
        if spec.dtype.kind == "b":
            return generator.integers(0, 2, shape).astype(bool)
        if spec.dtype.kind == "f":
            if distribution is None or distribution.is_normal:
                mean, std = (
                    (distribution.mean, distribution.std) if distribution else (0.0, self.scale)
                )
                return generator.normal(mean, std, shape).astype(spec.dtype)
            return generator.uniform(distribution.low, distribution.high, shape).astype(spec.dtype)
        if distribution is not None:
            low, high = int(distribution.low), int(distribution.high)
        elif spec.dtype == np.uint8:
            low, high = 0, 255
        else:
            low, high = self.integers
        padding = self.padded.padding.get(spec.name) if self.padded else None
        if padding is not None and self.padded and self.padded.length_input is None and low < high:
            # A value like the padding would end the row.
            drawn = generator.integers(low, high, shape, endpoint=False)
            return np.where(drawn >= padding, drawn + 1, drawn).astype(spec.dtype)
        return generator.integers(low, high, shape, endpoint=True).astype(spec.dtype)

    def _end_rows(self, drawn: dict[str, Array], lengths: Array) -> None:
        if self.padded is None:
            return
        if (name := self.padded.lengths) is not None:
            drawn[name] = lengths.astype(drawn[name].dtype)
            return
        if (name := self.padded.mask) is not None:
            mask = np.arange(drawn[name].shape[1]) < lengths[:, None]  # (rows, entries)
            drawn[name] = mask.astype(drawn[name].dtype)
            return
        for spec in self.inputs:
            if TIME not in (spec.axes or ()):
                continue
            array = drawn[spec.name]
            for row, length in enumerate(lengths):
                position = (spec.axes or ()).index(TIME)
                beyond = (slice(None),) * (position - 1) + (slice(int(length), None),)
                array[row][beyond] = self.padded.padding[spec.name]


def runnable(
    sampler: ExampleSampler, run: Callable[[Inputs], Mapping[str, Array]]
) -> ExampleSampler:
    """The sampler with sizes and integers on which the graph runs, best without NaN in its outputs.

    ExportError if it runs on none.
    """
    problem, with_nan = "", None
    # A graph may take short rows only.
    for candidate, width in product(_candidates(sampler), (sampler.width, 1)):
        try:
            outputs = run(candidate.draw(1, np.random.default_rng(0), width))
        except Exception as error:  # noqa: BLE001  # ONNX Runtime raises many unrelated classes
            problem = problem or runtime.reason(error)
            continue
        if not any(each.dtype.kind == "f" and np.isnan(each).any() for each in outputs.values()):
            return candidate
        # A mask of other values than 0 and 1 makes NaN, and NaN proves nothing.
        with_nan = with_nan or candidate
    if with_nan is not None:
        return with_nan
    raise ExportError(
        f"the graph runs on none of the example inputs; give --range or --golden: {problem}"
    )


def cut(array: Array, axes: Sequence[object] | None, length: int) -> Array:
    """The first entries along every `TIME` axis."""
    return array[tuple(slice(length if axis == TIME else None) for axis in axes or ())]


def _candidates(sampler: ExampleSampler) -> Iterator[ExampleSampler]:
    is_free = any(not isinstance(axis, int) for each in sampler.inputs for axis in each.axes or ())
    has_integers = any(each.dtype.kind in "iu" for each in sampler.inputs)
    for size in _SIZES if is_free else _SIZES[:1]:
        for integers in _INTEGERS if has_integers else _INTEGERS[:1]:
            yield replace(sampler, free_size=size, integers=integers)


def _ends(array: Array, spec: TensorSpec, padding: int) -> list[int]:
    """One past the last entry of each row that is not padding."""
    position = (spec.axes or ()).index(TIME)
    flat = np.moveaxis(array, position, 1)
    is_value = (flat != padding).reshape(*flat.shape[:2], -1).any(axis=2)  # (rows, entries)
    places = np.arange(1, is_value.shape[1] + 1)
    return [int(end) for end in (is_value * places).max(axis=1)]
