"""Parity gate of an import: what the imported graph must keep to before it is published.

Checks, on example rows in batches of several sizes:

- The imported graph, as the server runs it, gives the outputs of the file (`reference`).
- A second run gives the same outputs.
- A row alone, cut to its own length, gives what it gives in a padded batch.
- A row keeps the bits of its outputs beside any other row: of NaN, of very large and small numbers.
- Rows differ at all.
- Rows of few entries that the graph refuses alone, it refuses together.
- Outputs that were given with inputs are the graph's.

Values beyond a row's length are ignored. NaN agrees with NaN.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from weir.bundle.contract import Parity, Tolerance
from weir.export import runtime
from weir.export.difference import Difference, compare
from weir.export.errors import ExportError, ParityError
from weir.export.onnx_import.examples import TIME, ExampleSampler, cut
from weir.export.onnx_import.reference import Reference

Array = NDArray[Any]
Tensors = Mapping[str, Array]

BATCH_SIZES = (1, 2, 3, 8, 32)

_SEED = 20_261
_RUNS_WITHOUT_ROWS = 3
# Batches of up to 3 rows are also run row by row; with a padded axis, all batches are.
_ROWS_ALONE = 3
_EXTREMES = (np.nan, np.inf, 1e30, -1e30)
# A pixel, a number of words, and beyond; no value is the least of its type.
_LARGE_INTEGERS = (200, 1000, 100_000, -1000)
# Sizes of a free axis of which a few rows together may have the size that a graph demands.
_FEW = (1, 2, 3, 4)
# Limit of a batch's inputs: pictures of any size may come in 32 rows.
_MOST_BATCH_BYTES = 1 << 26


class RowsDependError(ParityError):
    """A row's outputs depend on the other rows of its batch, or rows do not run together."""


class SingleRowsError(RowsDependError):
    """The graph runs no more than one row at a time."""


class SameRowsError(RowsDependError):
    """All example rows have the same outputs, so that nothing is proved of them."""


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
    sampler: ExampleSampler
    axes: Mapping[str, Sequence[object]]
    tolerance: float

    def prove(self) -> Proof:
        """Run all checks; ParityError for the first that fails, RowsDependError for one of rows."""
        differences: list[Difference] = []
        sizes: list[int] = []
        rows_seen = 0
        widest = 0.0
        has_other_rows = False
        for batch in self._batches():
            expected = self._expected(batch)
            actual = self.run(batch)
            widest = max(widest, _greatest(expected))
            tolerance = self._tolerance(widest)
            differences += self._compare(batch, actual, expected, tolerance, "the file")
            self._compare(batch, self.run(batch), actual, tolerance, "a first run")
            rows = self.sampler.rows(batch)
            if self.sampler.padded or 1 < len(rows) <= _ROWS_ALONE:
                self._check_rows(rows, actual, tolerance)
            if len(rows) == _ROWS_ALONE:
                self._check_neighbours(batch, actual)
                moderate = self._moderate(batch)
                if usual := self._run_or_none(moderate):
                    self._check_neighbours(moderate, usual)
                if not self.sampler.padded:
                    self._check_largest(rows[:2], tolerance)
                    self._check_few_entries(tolerance)
            has_other_rows |= any(map(_has_other_rows, actual.values()))
            rows_seen += max(1, len(rows))
            sizes.append(max(1, len(rows)))
        if self.sampler.has_rows and not has_other_rows:
            raise SameRowsError(
                "all example rows have the same outputs, which proves nothing; give --range or "
                "--golden"
            )
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
        """The outputs of the imported graph; SingleRowsError if it runs single rows only."""
        try:
            return runtime.run(self.session, list(self.axes), inputs)
        except Exception as error:  # ONNX Runtime raises many unrelated classes
            reason = runtime.reason(error)
            if self.sampler.has_rows:
                raise SingleRowsError(f"rows do not run together: {reason}") from error
            raise ParityError(f"the graph does not run on the example inputs: {reason}") from error

    def compare_given(self, inputs: Tensors, outputs: Tensors, expected: Tensors) -> Parity:
        """The differences from given outputs; ParityError beyond the tolerance."""
        tolerance = self._tolerance(_greatest(expected))
        given = {name: outputs[name] for name in expected}
        differences = self._compare(inputs, given, expected, tolerance, "the outputs given")
        rows = len(next(iter(inputs.values()))) if self.sampler.has_rows else 1
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
            self._check_rows(self.sampler.rows(few), self.run(few), tolerance)
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
        if not self.sampler.has_rows:
            yield from (self.sampler.draw(1, generator) for _ in range(_RUNS_WITHOUT_ROWS))
            return
        one = _bytes_of(self.sampler.draw(1, generator))
        for size in BATCH_SIZES:
            if size > _ROWS_ALONE and size * one > _MOST_BATCH_BYTES:
                break
            yield self.sampler.draw(size, generator)
        if self.sampler.padded:
            yield self.sampler.draw(_ROWS_ALONE, generator, width=1)

    def _expected(self, batch: Tensors) -> dict[str, Array]:
        try:
            return self.reference.run(batch)
        except Exception as error:  # ONNX Runtime raises many unrelated classes
            raise ExportError(
                "the file does not run on all example inputs; give --range or --golden: "
                f"{runtime.reason(error)}"
            ) from error

    def _tolerance(self, widest: float) -> Tolerance:
        return Tolerance(absolute=self.tolerance * max(1.0, widest), relative=self.tolerance)

    def _compare(
        self, batch: Tensors, actual: Tensors, expected: Tensors, tolerance: Tolerance, what: str
    ) -> list[Difference]:
        """The difference of each output of floats; ParityError beyond the tolerance."""
        found = []
        lengths = self.sampler.lengths(batch) if self.sampler.padded else []
        for name, wanted in expected.items():
            got = actual[name]
            if self.sampler.has_rows and got.shape[:1] != wanted.shape[:1]:
                raise RowsDependError(
                    f"output {name!r}: expected shape {wanted.shape} as {what}, got {got.shape}"
                )
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
            length = self.sampler.lengths(row)[0]
            for name, alone in self.run(row).items():
                if len(together[name]) != len(rows) if together[name].ndim else True:
                    raise RowsDependError(
                        f"output {name!r}: expected {len(rows)} rows for {len(rows)}, "
                        f"got shape {together[name].shape}"
                    )
                own = cut(together[name][number : number + 1], self.axes[name], length)
                if alone.shape == own.shape and difference_of(own, alone, tolerance).excess <= 0.0:
                    continue
                padded = f" of length {length}" if self.sampler.padded else ""
                raise RowsDependError(
                    f"output {name!r}: row {number}{padded} of a batch is not what it is alone"
                )

    def _check_neighbours(self, batch: Tensors, usual: Tensors) -> None:
        """Raise RowsDependError if a row has other bits beside another row.

        A tolerance would hide a small influence. Batches of equal shape are computed alike, so a
        row at its place changes only if the other row reaches it.
        """
        lengths = self.sampler.lengths(batch)
        for described, changed in (*self._with_extremes(batch), self._with_another(batch)):
            for name, array in self._run_or_none(changed).items():
                for row in (0, 2):
                    own, expected = (
                        cut(each[row : row + 1], self.axes[name], lengths[row])
                        for each in (array, usual[name])
                    )
                    if not _has_same_bits(own, expected):
                        raise RowsDependError(
                            f"output {name!r}: row {row} of a batch changes if the row beside "
                            f"it holds {described}"
                        )

    def _with_another(self, batch: Tensors) -> tuple[str, Tensors]:
        """The batch with another second row."""
        width = max(self.sampler.lengths(batch)) or None
        other = self.sampler.draw(_ROWS_ALONE, np.random.default_rng(_SEED + 1), width)
        changed = {name: array.copy() for name, array in batch.items()}
        for name, array in changed.items():
            array[1] = other[name][1]
        return "other values", changed

    def _with_extremes(self, batch: Tensors) -> Iterator[tuple[str, Tensors]]:
        """The batch with an extreme value in its second row, of floats or of integers."""
        for extreme in _EXTREMES:
            changed = {name: array.copy() for name, array in batch.items()}
            for array in changed.values():
                if array.dtype.kind == "f":
                    most = float(np.finfo(array.dtype).max)
                    array[1] = np.clip(extreme, -most, most) if np.isfinite(extreme) else extreme
            yield f"{extreme:g}", changed
        counted = self._counted(batch)
        for number in _LARGE_INTEGERS if counted else ():
            changed = dict(batch)
            for name in counted:
                array = changed[name] = batch[name].copy()
                array[1] = _nearest(number, array.dtype)
            yield f"{number:g}", changed

    def _counted(self, batch: Tensors) -> list[str]:
        """Inputs of integers and booleans that may have any value."""
        padded = self.sampler.padded
        bound: set[str | None] = set(self.sampler.distributions)
        if padded is not None:
            bound |= {padded.lengths, padded.mask} if padded.length_input else set(padded.padding)
        return [
            name for name, array in batch.items() if array.dtype.kind in "iub" and name not in bound
        ]

    def _moderate(self, batch: Tensors) -> Tensors:
        """The batch with numbers near 0, which do not exceed what extreme values exceed."""
        moderate = dict(batch)
        for name in self._counted(batch):
            array = batch[name]
            moderate[name] = np.zeros_like(array) if array.dtype.kind == "b" else array % 2
        for name, array in batch.items():
            if array.dtype.kind == "f" and name not in self.sampler.distributions:
                # Of one sign: a comparison with 0 is one too.
                moderate[name] = np.abs(np.tanh(array) / 2).astype(array.dtype)
        return moderate

    def _check_largest(self, rows: Sequence[Tensors], tolerance: Tolerance) -> None:
        """Check the rows of the largest batch: one may depend on another that is far away."""
        alone = [self.run(row) for row in rows]
        most = min(BATCH_SIZES[-1], _MOST_BATCH_BYTES // max(1, _bytes_of(rows[0])))
        # In no order that repeats.
        order = np.random.default_rng(_SEED).integers(len(rows), size=most)
        if most <= _ROWS_ALONE:
            return
        together = self.run(
            {name: np.concatenate([rows[each][name] for each in order]) for name in rows[0]}
        )
        for place, number in enumerate(order):
            for name, expected in alone[number].items():
                own = together[name][place : place + 1]
                if not difference_of(own, expected, tolerance).excess <= 0.0:
                    raise RowsDependError(
                        f"output {name!r}: row {place} of a batch is not what it is alone"
                    )

    def _check_few_entries(self, tolerance: Tolerance) -> None:
        """Check that rows of few entries do not make up for each other's missing entries."""
        if all(
            isinstance(axis, int) for spec in self.sampler.inputs for axis in (spec.axes or ())[1:]
        ):
            return
        for size in _FEW:
            sampler = replace(self.sampler, free_size=size, sizes={})
            for count in (2, 3):
                batch = sampler.draw(count, np.random.default_rng(_SEED))
                together = self._run_or_none(batch)
                for number, row in enumerate(sampler.rows(batch) if together else ()):
                    alone = self._run_or_none(row)
                    for name, array in together.items():
                        if len(array) != count:
                            # The server then runs each request alone.
                            continue
                        own, expected = array[number : number + 1], alone.get(name)
                        if (
                            expected is None
                            or own.shape != expected.shape
                            or not difference_of(own, expected, tolerance).excess <= 0.0
                        ):
                            raise RowsDependError(
                                f"output {name!r}: a row of shape {_shapes(row)} changes in a "
                                f"batch of {count}, or does not run alone"
                            )

    def _run_or_none(self, inputs: Tensors) -> dict[str, Array]:
        """The outputs; none if the graph refuses the inputs, as then it refuses a request too."""
        with suppress(Exception):
            return runtime.run(self.session, list(self.axes), inputs)
        return {}

    def _checks(self, sizes: Sequence[int]) -> list[str]:
        checks = ["the graph gives the outputs of the file", "a repeated run gives the same"]
        if self.sampler.has_rows:
            batches = ", ".join(map(str, sorted(set(sizes))))
            checks.append(f"rows alone give what they give in a batch (batches of {batches})")
        if self.sampler.padded:
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


def _has_other_rows(output: Array) -> bool:
    """Whether some row of an output is not the first."""
    if not output.ndim:
        return False
    return any(not _has_same_bits(output[:1], output[row : row + 1]) for row in range(len(output)))


def _has_same_bits(left: Array, right: Array) -> bool:
    if left.dtype == object:
        return np.array_equal(left, right)
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def _nearest(number: int, dtype: np.dtype[Any]) -> int | bool:
    """The number, or the nearest that the type has; never the least of a signed type."""
    if dtype.kind == "b":
        return number > 0
    limits = np.iinfo(dtype)
    return max(min(number, int(limits.max)), int(limits.min) + (limits.min < 0))


def _bytes_of(inputs: Tensors) -> int:
    return sum(array.nbytes for array in inputs.values())


def _shapes(row: Tensors) -> str:
    return ", ".join(str(list(array.shape)) for array in row.values())


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
