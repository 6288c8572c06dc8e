"""Time series: columns of a CSV file, plain or gzipped, as numbers in the order of time.

    "Month","Sunspots"        a header line names the columns, quoted or not
    "1749-01",58.0            one row per time step, the oldest first

Commas, semicolons or tabs separate the columns, whichever is most frequent in the header line. Only
the requested columns are read; each of their cells is one finite number with a decimal point. Blank
lines are skipped.
"""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weir.training.data.download import DataFolders, RemoteFile, checksum, locate
from weir.training.data.lines import Line, read_lines
from weir.training.errors import DataError

SUNSPOTS = "sunspots"
SUNSPOT_COLUMN = "Sunspots"
FOLDER = "timeseries"
FILE = RemoteFile(
    "https://raw.githubusercontent.com/jbrownlee/Datasets/d20fcb6/monthly-sunspots.csv",
    45_039,
    "c4ec8cc57d9f6fb6ecdb3e1f37f25b6f4badd5124c55931052b0cd2fc3bc71f3",
)
SERIES_SETS = (SUNSPOTS,)
"""The names of series sets; `load_series` takes any other name for a path."""

_DELIMITERS = (",", ";", "\t")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_GREATEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class SeriesData:
    """Columns of one file.

    columns: their names, the column to forecast first.
    values: (steps, columns), the oldest first.
    checksum: SHA-256 over the file.
    """

    name: str
    columns: tuple[str, ...]
    values: NDArray[np.float64]
    checksum: str


class _Row(NamedTuple):
    place: str
    cells: list[str]


def load_series(name: str, value: str | None, exogenous: Sequence[str] = ()) -> SeriesData:
    """Load columns of a named set or of a CSV file; errors as `read_columns` and `locate`.

    Args:
        name: one of `SERIES_SETS`, or the path of a CSV file.
        value: the column to forecast. None: the default column of a named set; for a file an error
            that lists its columns.
        exogenous: other columns that the value may depend on.
    """
    if name == SUNSPOTS:
        path = locate(FOLDER, FILE, DataFolders.from_environment())
        columns = (value or SUNSPOT_COLUMN, *exogenous)
        return SeriesData(name, columns, read_columns(path, columns), FILE.sha256)
    path = Path(name)
    if not path.is_file():
        raise DataError(f"{name}: neither a series ({', '.join(SERIES_SETS)}) nor a CSV file")
    if value is None:
        there = ", ".join(next(_rows(path)).cells)
        raise DataError(f"{name}: expected the column to forecast (--value); there are {there}")
    columns = (value, *exogenous)
    return SeriesData(str(path.resolve()), columns, read_columns(path, columns), checksum(path))


def read_columns(path: Path, columns: Sequence[str]) -> NDArray[np.float64]:
    """Read columns of a CSV file: (steps, columns); `DataError` names file, line and column."""
    rows = _rows(path)
    header = next(rows)
    chosen = [_find(header, column) for column in columns]
    values = [
        [_read_number(row, at, header) for at in chosen] for row in rows if _is_whole(row, header)
    ]
    if not values:
        raise DataError(f"{path}: expected rows below the header, got none")
    return np.array(values, np.float64)


def _rows(path: Path) -> Iterator[_Row]:
    """Yield the header, then each row that is not blank."""
    lines = read_lines(path)
    first = next((line for line in lines if line.text.strip()), None)
    if first is None:
        raise DataError(f"{path}: expected a CSV file with a header, got no text")
    reader = csv.reader(
        [line.text for line in lines], delimiter=_choose_delimiter(first), strict=True
    )
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}, line {number}: expected CSV, got {error}") from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield _Row(f"{path}, line {number}", [cell.strip() for cell in cells])


def _choose_delimiter(header: Line) -> str:
    def columns(delimiter: str) -> int:
        try:
            return len(next(csv.reader([header.text], delimiter=delimiter, strict=True)))
        except csv.Error:
            return 0

    return max(_DELIMITERS, key=columns)  # of equals, the first


def _find(header: _Row, column: str) -> int:
    count = header.cells.count(column)
    if count != 1:
        found = "none" if count == 0 else f"{count} of that name"
        raise DataError(
            f"{header.place}: expected a column {column!r}, got {found}; "
            f"there are {', '.join(header.cells)}"
        )
    return header.cells.index(column)


def _is_whole(row: _Row, header: _Row) -> bool:
    if len(row.cells) != len(header.cells):
        raise DataError(
            f"{row.place}: expected {len(header.cells)} columns as in the header, "
            f"got {len(row.cells)}"
        )
    return True


def _read_number(row: _Row, at: int, header: _Row) -> float:
    cell = row.cells[at]
    if _NUMBER.fullmatch(cell):
        value = float(cell)
        if math.isfinite(value) and abs(value) <= _GREATEST:
            return value
    elif not _NOT_FINITE.fullmatch(cell):
        found = repr(cell) if cell else "an empty cell"
        raise DataError(f"{row.place}, column {header.cells[at]}: expected a number, got {found}")
    raise DataError(
        f"{row.place}, column {header.cells[at]}: expected a finite number of 32 bits, got {cell!r}"
    )
