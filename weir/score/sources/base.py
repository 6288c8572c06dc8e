"""Source: the rows of an input, and the rules that all forms share.

Rules:
- Memory is that of a few thousand rows, or of a few megabytes if rows are large.
- Each line and each picture is a row, in the order of the file or of the sorted names.
- A line or a file that cannot be read is the error of its row. A table that cannot be read ends
  the run.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import pyarrow as pa

from weir.score.rows import Part

Columns: TypeAlias = Mapping[str, pa.DataType | None]
"""Columns by name, each with its type; None where it depends on what is asked for (JSON)."""

READ_BYTES = 8 << 20
"""What is read at a time, as far as it holds whole rows."""
READ_ROWS = 8192
"""The most rows that are read at a time."""

# Of each end of a file, to recognise it at a resume.
_SAMPLE_BYTES = 1 << 16


class Source(Protocol):
    """Rows to score.

    Attributes:
        rows: their number.
        row_bytes: the mean size of one, about.
        columns: the type of each column; None where it depends on what is asked for (JSON).
    """

    rows: int
    row_bytes: int
    columns: Columns

    def identity(self) -> str:
        """What tells this input from another one."""

    def read(self, columns: Columns, start: int, stop: int) -> Iterator[Part]:
        """The rows from `start` to `stop`, in parts of any size.

        Args:
            columns: to read, each with its type; None for that of the source.
        """


def rows_at_a_time(row_bytes: int) -> int:
    """How many rows are read at a time, by the mean size of one."""
    return max(1, min(READ_ROWS, READ_BYTES // max(1, row_bytes)))


def in_parts(parts: Iterator[Part], rows: int) -> Iterator[Part]:
    """The same rows in parts of `rows`, the last one shorter."""
    held: list[Part] = []
    count = 0
    for part in parts:
        rest = part
        while count + rest.table.num_rows >= rows:
            taken = rows - count
            yield _joined([*held, _cut(rest, 0, taken)])
            rest = _cut(rest, taken, rest.table.num_rows)
            held, count = [], 0
        if rest.table.num_rows:
            held.append(rest)
            count += rest.table.num_rows
    if held:
        yield _joined(held)


def _cut(part: Part, start: int, stop: int) -> Part:
    errors = {at - start: text for at, text in part.errors.items() if start <= at < stop}
    return Part(part.start + start, part.table.slice(start, stop - start), errors)


def _joined(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    first = parts[0].start
    errors = {at + part.start - first: text for part in parts for at, text in part.errors.items()}
    return Part(first, pa.concat_tables([part.table for part in parts]), errors)


def digest_of(files: Sequence[Path]) -> str:
    """A digest of the files' names, sizes and ends."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
