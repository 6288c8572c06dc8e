"""Rows on their way through a scoring run: as read, as a batch to run, and as scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ERROR = "error"
"""The column of the scores that says why a row has none."""


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of the input; the unit in which scores are written.

    Attributes:
        start: the number of the first row in the input.
        table: the columns that were asked for.
        errors: why a row cannot be read, by its position in the part.
    """

    start: int
    table: pa.Table
    errors: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of some rows of a part.

    Attributes:
        positions: of the rows in the part; one for each entry of a column.
        columns: by name, as in the schema of the model.
        errors: why a row has no scores, by its position.
    """

    positions: Sequence[int]
    columns: Mapping[str, pa.Array]
    errors: Mapping[int, str] = field(default_factory=dict)


class Batch(Protocol):
    """Rows of a part that are scored together."""

    def score(self) -> Scores:
        """Score them; a row that fails has an error. Several threads score batches at once."""


@dataclass(frozen=True, slots=True)
class PreparedPart:
    """A part, cut into batches.

    Attributes:
        errors: as of `Part`, with the rows that no batch can take.
    """

    part: Part
    batches: Sequence[Batch]
    errors: Mapping[int, str]


class Scorer(Protocol):
    """A model that scores parts.

    Attributes:
        schema: of the columns of its scores.
        identity: what the scores depend on; a run is resumed only with the same.
        part_rows: rows of a part.
        parallel: batches that are scored at the same time.
    """

    schema: pa.Schema
    identity: Mapping[str, object]
    part_rows: int
    parallel: int

    def prepare(self, part: Part) -> PreparedPart:
        """Cut a part into batches."""

    def stop(self) -> None:
        """Let batches that wait fail: the run has ended."""


PART_BYTES = 16 << 20
"""The inputs of a part; a few parts are in memory at a time."""


def part_rows(most: int, row_bytes: int) -> int:
    """The rows of a part, by the mean size of a row."""
    return max(1, min(most, PART_BYTES // max(1, row_bytes)))


def one_array(part: Part, column: str) -> pa.Array:
    """A column of a part in one piece."""
    found = part.table.column(column)
    return found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()


def assemble(
    prepared: PreparedPart, scores: Sequence[Scores], schema: pa.Schema, keep: Sequence[str]
) -> pa.Table:
    """The scores of a part in the order of its rows; those without scores are null.

    Args:
        schema: of the columns of the scores.
        keep: columns of the part that go before them.
    """
    table = prepared.part.table
    rows = table.num_rows
    found = {**prepared.errors}
    for each in scores:
        found |= each.errors
    order = _order([each.positions for each in scores if len(each.positions)], rows)
    columns = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        arrays = [each.columns[name] for each in scores if len(each.positions)]
        column = pa.concat_arrays(arrays) if arrays else pa.array([], kind)
        columns.append(column if order is None else column.take(order))
    messages = (
        pa.array([found.get(position) for position in range(rows)], pa.string())
        if found
        else pa.nulls(rows, pa.string())
    )
    kept = {name: table.column(name) for name in keep}
    kinds = {name: column.type for name, column in kept.items()}
    return pa.Table.from_arrays(
        [*kept.values(), *columns, messages], schema=schema_of(kinds, schema)
    )


def schema_of(kept: Mapping[str, pa.DataType], schema: pa.Schema) -> pa.Schema:
    """The columns of an output: those that are kept, the scores, and the errors."""
    return pa.schema([*kept.items(), *schema, (ERROR, pa.string())])


def _order(positions: Sequence[Sequence[int]], rows: int) -> pa.Array | None:
    """Where each row is among scores one after the other; None if they are in order."""
    flat = (
        np.concatenate([_numbers(each) for each in positions])
        if positions
        else np.empty(0, np.intp)
    )
    if np.array_equal(flat, np.arange(rows)):
        return None
    where = np.full(rows, -1)
    where[flat] = np.arange(len(flat))
    return pa.array(where, mask=where < 0)


def _numbers(positions: Sequence[int]) -> NDArray[np.intp]:
    if isinstance(positions, range):
        return np.arange(positions.start, positions.stop)  # without an object for each
    return np.asarray(positions, np.intp)


def score_table(scorer: Scorer, table: pa.Table, keep: Sequence[str] = ()) -> pa.Table:
    """The kept columns and the scores of a table, in the order of its rows; in this thread.

    Args:
        table: the columns that the scorer reads, and those to keep.
    """
    prepared = scorer.prepare(Part(0, table))
    return assemble(prepared, [batch.score() for batch in prepared.batches], scorer.schema, keep)
