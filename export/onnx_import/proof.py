"""Parity gate of an import: what the imported graph must keep to before it is published.

Checks, on example rows in batches of several sizes:

- The imported graph, as the server runs it, gives the outputs of the file (`reference`).
- A second run gives the same outputs.
- A row alone, cut to its own length, gives what it gives in a padded batch.
- A row keeps its outputs beside a row of NaN, and beside a row of very large numbers.
- Outputs that were given with inputs are the graph's.

Values beyond a row's length are ignored. NaN agrees with NaN.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from weir.bundle.contract import Parity, Tolerance
from weir.export import runtime
from weir.export.difference import Difference, compare
from weir.export.errors import ExportError, ParityError
from weir.export.onnx_import.examples import TIME, Drawer, cut
from weir.export.onnx_import.reference import Reference

Array = NDArray[Any]
Tensors = Mapping[str, Array]

BATCH_SIZES = (1, 2, 3, 8, 32)

_SEED = 20_261
_RUNS_WITHOUT_ROWS = 3
# Batches of up to 3 rows are also run row by row; with a padded axis, all batches are.
_ROWS_ALONE = 3
_EXTREMES = (np.nan, 1e30)
# Limit of a batch's inputs: pictures of any size may come in 32 rows.
_MOST_BATCH_BYTES = 1 << 26


class RowsDependError(ParityError):
    """A row's outputs depend on the other rows of its batch, or rows do not run together."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proved: the differences from the reference, and each check in words."""

    parity: Parity
    checks: list[str]
    tolerance: Tolerance


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate of one graph.

    Attributes:
        axes: of each output, with `TIME` where it follows the padded axis.
        tolerance: of values, relative to the value and to the largest output.
    """

    session: onnxruntime.InferenceSession
    reference: Reference
    drawer: Drawer
    axes: Mapping[str, Sequence[object]]
    tolerance: float

    def prove(self) -> Proof:
        """Run all checks; ParityError for the first that fails, RowsDependError for one of rows."""
        differences: list[Difference] = []
        sizes: list[int] = []
        rows_seen = 0
        widest = 0.0
        for batch in self._batches():
            expected = self._expected(batch)
            actual = self.run(batch)
            widest = max(widest, _greatest(expected))
            tolerance = self._tolerance(widest)
            differences += self._compare(batch, actual, expected, tolerance, "the file")
            self._compare(batch, self.run(batch), actual, tolerance, "a first run")
            rows = self.drawer.rows(batch)
            if self.drawer.padded or 1 < len(rows) <= _ROWS_ALONE:
                self._check_rows(rows, actual, tolerance)
            if len(rows) == _ROWS_ALONE:
                self._check_neighbours(batch, actual, tolerance)
            rows_seen += max(1, len(rows))
            sizes.append(max(1, len(rows)))
        parity = Parity(
            max_absolute=max(each.absolute for each in differences),
            max_relative=max(each.relative for each in differences),
            rows=rows_seen,
            batch_sizes=sorted(set(sizes)),
            examples="random, seeded",
            against=f"the imported file in ONNX Runtime {runtime.VERSION}, not optimised",
        )
        return Proof(parity, self._checks(sizes), self._tolerance(widest))

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """The outputs of the imported graph; RowsDependError if it runs single rows only."""
        try:
            return runtime.run(self.session, list(self.axes), inputs)
        except Exception as error:  # ONNX Runtime raises many unrelated classes
            reason = runtime.reason(error)
            if self.drawer.has_rows:
                raise RowsDependError(f"rows do not run together: {reason}") from error
            raise ParityError(f"the graph does not run on the example inputs: {reason}") from error

    def compare_given(self, inputs: Tensors, outputs: Tensors, expected: Tensors) -> Parity:
        """The differences from given outputs; ParityError beyond the tolerance."""
        tolerance = self._tolerance(_greatest(expected))
        given = {name: outputs[name] for name in expected}
        differences = self._compare(inputs, given, expected, tolerance, "the outputs given")
        rows = len(next(iter(inputs.values()))) if self.drawer.has_rows else 1
        return Parity(
            max_absolute=max(each.absolute for each in differences),
            max_relative=max(each.relative for each in differences),
            rows=rows,
            batch_sizes=[rows],
            examples="given",
            against="the outputs given",
        )

    def record(self, batches: Iterable[Tensors], tolerance: Tolerance, exact: Proof) -> Proof:
        """The differences from the file without a limit; rows and repeated runs are checked.

        Args:
            tolerance: of the rows.
            exact: the proof of the graph before its precision was reduced.
        """
        unlimited = Tolerance(absolute=np.finfo(np.float64).max, relative=0.0)
        differences, sizes = [], []
        for batch in batches:
            actual = self.run(batch)
            expected = self._expected(batch)
            floats = {name: each for name, each in expected.items() if each.dtype.kind == "f"}
            differences += self._compare(batch, actual, floats, unlimited, "the file")
            self._compare(batch, self.run(batch), actual, tolerance, "a first run")
            few = {name: array[:_ROWS_ALONE] for name, array in batch.items()}
            self._check_rows(self.drawer.rows(few), self.run(few), tolerance)
            sizes.append(len(next(iter(batch.values()))))
        parity = exact.parity.model_copy(
            update={
                "max_absolute": max(each.absolute for each in differences),
                "max_relative": max(each.relative for each in differences),
                "rows": sum(sizes),
                "batch_sizes": sorted(set(sizes)),
                "examples": "rows of the calibration",
            }
        )
        return Proof(parity, exact.checks, tolerance)

    def _batches(self) -> Iterator[Tensors]:
        generator = np.random.default_rng(_SEED)
        if not self.drawer.has_rows:
            yield from (self.drawer.draw(1, generator) for _ in range(_RUNS_WITHOUT_ROWS))
            return
        one = sum(array.nbytes for array in self.drawer.draw(1, generator).values())
        for size in BATCH_SIZES:
            if size > _ROWS_ALONE and size * one > _MOST_BATCH_BYTES:
                break
            yield self.drawer.draw(size, generator)
        if self.drawer.padded:
            yield self.drawer.draw(_ROWS_ALONE, generator, width=1)

    def _expected(self, batch: Tensors) -> dict[str, Array]:
        try:
            return self.reference.run(batch)
        except Exception as error:  # ONNX Runtime raises many unrelated classes
            raise ExportError(
                "the file does not run on all inputs that were made up; give --range or --golden: "
                f"{runtime.reason(error)}"
            ) from error

    def _tolerance(self, widest: float) -> Tolerance:
        return Tolerance(absolute=self.tolerance * max(1.0, widest), relative=self.tolerance)

    def _compare(
        self, batch: Tensors, actual: Tensors, expected: Tensors, tolerance: Tolerance, what: str
    ) -> list[Difference]:
        """The difference of each output of floats; ParityError beyond the tolerance."""
        found = []
        lengths = self.drawer.lengths(batch) if self.drawer.padded else []
        for name, wanted in expected.items():
            got = actual[name]
            if got.shape != wanted.shape or (
                got.dtype != wanted.dtype and wanted.dtype.kind != "f"
            ):
                raise ParityError(
                    f"output {name!r}: expected {wanted.dtype} {wanted.shape} as {what}, "
                    f"got {got.dtype} {got.shape}; nothing was published"
                )
            axes = self.axes[name]
            own = (got, wanted)
            if TIME in axes:
                own = (_within(got, axes, lengths), _within(wanted, axes, lengths))
            difference = difference_of(*own, tolerance)
            if not difference.excess <= 0.0:
                raise ParityError(
                    f"output {name!r}: differs from {what} by {difference.absolute:.3g}, allowed "
                    f"is {tolerance.absolute:.3g} + {tolerance.relative:g} of the value "
                    "(--tolerance); nothing was published"
                )
            if wanted.dtype.kind == "f":
                found.append(difference)
        return found or [Difference(0.0, 0.0, 0.0)]

    def _check_rows(self, rows: Sequence[Tensors], together: Tensors, tolerance: Tolerance) -> None:
        for number, row in enumerate(rows):
            length = self.drawer.lengths(row)[0]
            for name, alone in self.run(row).items():
                if len(together[name]) != len(rows) if together[name].ndim else True:
                    raise RowsDependError(
                        f"output {name!r}: expected {len(rows)} rows for {len(rows)}, "
                        f"got shape {together[name].shape}"
                    )
                own = cut(together[name][number : number + 1], self.axes[name], length)
                if alone.shape == own.shape and difference_of(own, alone, tolerance).excess <= 0.0:
                    continue
                padded = f" of length {length}" if self.drawer.padded else ""
                raise RowsDependError(
                    f"output {name!r}: row {number}{padded} of a batch is not what it is alone"
                )

    def _check_neighbours(self, batch: Tensors, usual: Tensors, tolerance: Tolerance) -> None:
        """Raise RowsDependError if a row notices extreme values in the row beside it."""
        lengths = self.drawer.lengths(batch)
        for extreme in _EXTREMES:
            changed = {name: array.copy() for name, array in batch.items()}
            for array in changed.values():
                if array.dtype.kind == "f":
                    array[1] = min(extreme, float(np.finfo(array.dtype).max))
            outputs: dict[str, Array] = {}
            # If a batch fails, the server runs each request alone.
            with suppress(Exception):
                outputs = runtime.run(self.session, list(self.axes), changed)
            for name, array in outputs.items():
                for row in (0, 2):
                    own, expected = (
                        cut(each[row : row + 1], self.axes[name], lengths[row])
                        for each in (array, usual[name])
                    )
                    if not difference_of(own, expected, tolerance).excess <= 0.0:
                        raise RowsDependError(
                            f"output {name!r}: row {row} of a batch is another if the row beside "
                            f"it holds {extreme:g}"
                        )

    def _checks(self, sizes: Sequence[int]) -> list[str]:
        checks = ["the graph gives the outputs of the file", "a repeated run gives the same"]
        if self.drawer.has_rows:
            batches = ", ".join(map(str, sorted(set(sizes))))
            checks.append(f"rows alone give what they give in a batch (batches of {batches})")
        if self.drawer.padded:
            checks.append("padding changes no row")
        return checks


def difference_of(actual: Array, expected: Array, tolerance: Tolerance) -> Difference:
    """The difference of two outputs of any type; NaN agrees with NaN, and texts must be equal."""
    if expected.dtype.kind not in "biuf":
        same = bool(np.array_equal(actual, expected))
        return Difference(0.0, 0.0, 0.0) if same else Difference(np.inf, np.inf, np.inf)
    if expected.dtype.kind == "f":
        are_both = np.isnan(actual) & np.isnan(expected)
        actual, expected = np.where(are_both, 0, actual), np.where(are_both, 0, expected)
    return compare(actual, expected, tolerance)


def _within(array: Array, axes: Sequence[object], lengths: Sequence[int]) -> Array:
    """An output with zeros beyond each row's length."""
    kept = np.zeros_like(array)
    for row, length in enumerate(lengths):
        own = tuple(slice(length if axis == TIME else None) for axis in axes[1:])
        kept[row][own] = array[row][own]
    return kept


def _greatest(outputs: Tensors) -> float:
    """The largest finite value of all outputs of floats."""
    floats = [array for array in outputs.values() if array.dtype.kind == "f"]
    return max(
        (float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in floats),
        default=0.0,
    )
