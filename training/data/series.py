"""Series: the columns of a CSV file as numbers in the order of time, plain or gzipped.

    "Month","Sunspots"        a header line names the columns, quoted or not
    "1749-01",58.0            a row for each moment, the oldest first

Commas, semicolons or tabs part the columns, whichever the header line has most of. Only the columns that are
asked for are read; each of their cells holds one finite number with a decimal point. Blank lines are passed over.
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

from weir.training.data.download import Places, RemoteFile, checksum, locate
from weir.training.data.textfile import Line, read_lines
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
"""The names `load_series` knows; any other is taken for the path of a file."""

_DELIMITERS = (",", ";", "\t")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_GREATEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class SeriesData:
    """Columns of one file.

    columns: their names, the one to forecast first.
    values: (moments, columns), from the oldest.
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
    """The columns of a set or of a file of yours.

    Args:
        name: one of `SERIES_SETS`, or the path of a CSV file.
        value: the column to forecast; none: of a named set its own, of a file an error that lists what there is.
        exogenous: other columns, that the value may depend on.

    Raises:
        DataError: unknown name, or a broken file: names file, line, column, what was expected and what came.
        DownloadError: a file that is neither here nor could be fetched.
    """
    if name == SUNSPOTS:
        path = locate(FOLDER, FILE, Places.from_environment())
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
    """Numbers (moments, columns) of a CSV file.

    Raises:
        DataError: names the file, the line, the column, what was expected and what came.
    """
    rows = _rows(path)
    header = next(rows)
    chosen = [_find(header, column) for column in columns]
    values = [
        [_read_number(row, at, header) for at in chosen] for row in rows if _is_whole(row, header)
    ]
    if not values:
        raise DataError(f"{path}: expected rows below the header, found none")
    return np.array(values, np.float64)


def _rows(path: Path) -> Iterator[_Row]:
    """The header, then each row that is not blank."""
    lines = read_lines(path)
    first = next((line for line in lines if line.text.strip()), None)
    if first is None:
        raise DataError(f"{path}: expected a CSV file with a header, found no text")
    reader = csv.reader(
        [line.text for line in lines], delimiter=_choose_delimiter(first), strict=True
    )
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}, line {number}: expected CSV, found {error}") from error
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
            f"{header.place}: expected a column {column!r}, found {found}; there are {', '.join(header.cells)}"
        )
    return header.cells.index(column)


def _is_whole(row: _Row, header: _Row) -> bool:
    if len(row.cells) != len(header.cells):
        raise DataError(
            f"{row.place}: expected {len(header.cells)} columns as in the header, found {len(row.cells)}"
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
        raise DataError(f"{row.place}, column {header.cells[at]}: expected a number, found {found}")
    raise DataError(
        f"{row.place}, column {header.cells[at]}: expected a finite number of 32 bits, found {cell!r}"
    )
