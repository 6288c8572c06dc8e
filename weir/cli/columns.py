"""The columns of a CSV file: a header line, and a row of numbers for each moment, the oldest first.

Commas, semicolons or tabs part them, whichever the header line has most of.
"""

import csv
import math
import re
from collections.abc import Iterable, Sequence

from weir.client.errors import UsageError

_DELIMITERS = (",", ";", "\t")
# Python would take 1_000 and digits of other scripts too.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def read_columns(
    lines: Iterable[str], source: str, wanted: Sequence[str]
) -> dict[str, list[float]]:
    """Columns by name, those that hold numbers unless others are wanted.

    A column that holds numbers and something else is refused, not passed over: what is sent would
    depend on a single cell.

    Args:
        lines: of the file.
        source: its name, for errors.
        wanted: names; none: every column with a number in it.

    Raises:
        UsageError: names the file, the line, what was expected and what came.
    """
    try:
        rows = list(_rows(list(lines)))
    except csv.Error as error:
        raise UsageError(f"{source}: expected CSV: {error}") from error
    if not rows:
        raise UsageError(f"{source}: expected a header line and rows of numbers, got nothing")
    (_, header), *rest = rows
    names = [name.strip() for name in header]
    for number, row in rest:
        if len(row) != len(names):
            raise UsageError(
                f"{source}, line {number}: expected {len(names)} cells, got {len(row)}"
            )
    chosen = wanted or [
        name for place, name in enumerate(names) if any(_is_number(row[place]) for _, row in rest)
    ]
    if not chosen:
        raise UsageError(f"{source}: expected a column of numbers, got none")
    for name in chosen:
        if names.count(name) != 1:
            listed = ", ".join(map(repr, names))
            raise UsageError(f"{source}: expected one column {name!r}, got {listed}")
    return {
        name: [
            _number(row[names.index(name)], name, f"{source}, line {number}")
            for number, row in rest
        ]
        for name in chosen
    }


def _rows(lines: Sequence[str]) -> Iterable[tuple[int, list[str]]]:
    """Each line that is not blank, with its number, cut into cells."""
    header = next((line for line in lines if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    return ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text.strip())) and math.isfinite(float(text))


def _number(text: str, name: str, place: str) -> float:
    if not _is_number(text):
        raise UsageError(f"{place}, column {name!r}: expected a finite number, got {text!r}")
    return float(text)
