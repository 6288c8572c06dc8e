"""The columns of a CSV file: a header line, and a row of numbers for each moment, the oldest first.

Commas, semicolons or tabs part them, whichever the header line has most of.
"""

import csv
import math
from collections.abc import Iterable, Sequence

from weir.errors import UsageError

_DELIMITERS = (",", ";", "\t")


def read_columns(
    lines: Iterable[str], source: str, wanted: Sequence[str]
) -> dict[str, list[float]]:
    """Columns by name, those that hold numbers only unless others are wanted.

    Args:
        lines: of the file.
        source: its name, for errors.
        wanted: names; none: every column of numbers.

    Raises:
        UsageError: names the file, the line, what was expected and what came.
    """
    rows = list(_rows(list(lines)))
    if not rows:
        raise UsageError(f"{source}: expected a header line and rows of numbers, got nothing")
    (_, header), *rest = rows
    names = [name.strip() for name in header]
    for number, row in rest:
        if len(row) != len(names):
            raise UsageError(
                f"{source}, line {number}: expected {len(names)} cells, got {len(row)}"
            )
    for name in wanted:
        if names.count(name) != 1:
            listed = ", ".join(map(repr, names))
            raise UsageError(f"{source}: expected one column {name!r}, got {listed}")
    columns = {
        name: [(number, row[place]) for number, row in rest] for place, name in enumerate(names)
    }
    if wanted:
        return {name: [_number(cell, name, source) for cell in columns[name]] for name in wanted}
    numbers = {
        name: [float(text) for _, text in cells]
        for name, cells in columns.items()
        if cells and all(_is_number(text) for _, text in cells)
    }
    if not numbers:
        raise UsageError(f"{source}: expected a column of numbers, got none")
    return numbers


def _rows(lines: Sequence[str]) -> Iterable[tuple[int, list[str]]]:
    """Each line that is not blank, with its number, cut into cells."""
    header = next((line for line in lines if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    return ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(cell: tuple[int, str], name: str, source: str) -> float:
    number, text = cell
    if not _is_number(text):
        raise UsageError(
            f"{source}, line {number}, column {name!r}: expected a finite number, got {text!r}"
        )
    return float(text)
