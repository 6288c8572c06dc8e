"""Tables of numbers in CSV files, as spreadsheets and programs save them.

    "Month";"Sales, EUR"        a header line names the columns, quoted or not
    "1949-01";1.234,5           one row per time step, the oldest first

Rules:

1. Text is UTF-8, or UTF-16 with its mark. Other bytes are read as Windows-1252, with a remark.
2. Semicolons, tabs or commas separate columns: those that cut most rows into as many cells as the
   header, of equals in this order. A first line `sep=;` decides.
3. The decimal mark is decided for the file as a whole (`number_format`).
4. Blank lines, and empty cells behind the last named column, are skipped.
5. Dates are those of `date_column`. Dates that fall are refused, because rows go from old to new.
"""

import csv
import gzip
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from weir.bundle.date_column import DateColumn, is_date, read_dates
from weir.bundle.errors import TableError
from weir.bundle.number_format import (
    Cell,
    DecimalMark,
    decide_mark,
    is_number,
    parse_number,
)

_DELIMITERS = (";", "\t", ",")
_SEPARATOR_LINE = re.compile(r'"?sep=(?P<mark>[;,|:\t])"?', re.IGNORECASE)
_UNNAMED_DATES = "date"
_ROW_NUMBER = re.compile(r"[0-9]{1,15}")
_GREATEST = (2 - 2**-23) * 2.0**127
_OTHER_FILES = {
    b"PK\x03\x04": "an Excel workbook or another archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet file",
}
_NO_TEXT = "{}: expected a CSV file with a header, got no text"
_GZIP = b"\x1f\x8b"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class _Row(NamedTuple):
    line: int
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """A table with a header; its cells are read as numbers or dates when they are asked for.

    Attributes:
        names: of the columns; "" for one without a name, which cannot be asked for.
        remarks: what was assumed about the file, in sentences.
    """

    source: str
    names: tuple[str, ...]
    delimiter: str
    header_line: int
    remarks: tuple[str, ...] = ()
    decimal: DecimalMark | None = None
    _rows: list[_Row] = field(default_factory=list, repr=False)

    def numbers(self, name: str) -> list[float]:
        """A column; TableError names file, line and column of a cell that is no finite number."""
        index, mark = self._find(name), self.mark
        values: list[float] = []
        for row in self._rows:
            value = parse_number(row.cells[index], mark)
            if value is None or abs(value) > _GREATEST:
                raise self._not_a_number(Cell(self.source, row.line, row.cells[index]), name, value)
            values.append(value)
        return values

    @cached_property
    def number_columns(self) -> tuple[str, ...]:
        """The named columns with a number in them, but the dates."""
        dates = self.dates.name if self.dates else None
        return tuple(
            name
            for index, name in enumerate(self.names)
            if name and name != dates and any(is_number(cell.text) for cell in self._cells(index))
        )

    @cached_property
    def value_columns(self) -> tuple[str, ...]:
        """The columns of numbers that do more than count the rows."""
        return tuple(
            name
            for name in self.number_columns
            if not _counts_rows([cell.text for cell in self._cells(self.names.index(name))])
        )

    @cached_property
    def dates(self) -> DateColumn | None:
        """The first column of dates; None if there is none.

        TableError if they fall from row to row, or if the first column has dates and other cells.
        """
        for index, name in enumerate(self.names):
            cells = list(self._cells(index))
            found = read_dates(name or _UNNAMED_DATES, cells)
            if found is not None:
                _require_rising(found)
                return found
            if index == 0:
                self._refuse_other_cells(name, cells)
        return None

    @cached_property
    def mark(self) -> DecimalMark:
        """The decimal mark; TableError if it is in doubt."""
        if self.decimal is not None:
            return self.decimal
        dates = self.dates.name if self.dates else None
        cells = (
            cell
            for index, name in enumerate(self.names)
            if name != dates and self._has_numbers_only(index)
            for cell in self._cells(index)
        )
        return decide_mark(cells, self.source, delimiter=self.delimiter)

    def _has_numbers_only(self, index: int) -> bool:
        texts = (row.cells[index] for row in self._rows)
        return all(not text or is_number(text) for text in texts)

    def _cells(self, index: int) -> Iterator[Cell]:
        return (Cell(self.source, row.line, row.cells[index]) for row in self._rows)

    def _find(self, name: str) -> int:
        count = self.names.count(name)
        if not name or count != 1:
            found = f"{count} of that name" if name and count else "none"
            raise TableError(
                f"{self.source}, line {self.header_line}: expected a column {name!r}, got {found}; "
                f"there are {list_names(self.names)}"
            )
        return self.names.index(name)

    def _not_a_number(self, cell: Cell, name: str, value: float | None) -> TableError:
        where, found = f"{cell.place}, column {name}", repr(cell.text)
        if value is not None or _is_not_finite(cell.text):
            return TableError(f"{where}: expected a finite number of 32 bits, got {found}")
        kind = f"a number with a decimal {self.mark}" if is_number(cell.text) else "a number"
        return TableError(
            f"{where}: expected {kind}, got {found if cell.text else 'an empty cell'}"
        )

    def _refuse_other_cells(self, name: str, cells: Sequence[Cell]) -> None:
        """Refuse a row such as `Total` below the dates, which would be read as a time step."""
        others = [cell for cell in cells if not is_date(cell.text)]
        if others and 2 * len(others) < len(cells):
            found = repr(others[0].text) if others[0].text else "an empty cell"
            raise TableError(
                f"{others[0].place}, column {name or _UNNAMED_DATES}: expected a date as in other "
                f"rows, got {found}"
            )


def list_names(names: Iterable[str]) -> str:
    """Names of columns for messages; one with a comma or a quote is quoted as in a CSV file."""
    return ", ".join(_quoted(name) if set(name) & set(',"') else name for name in names if name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def read_table(content: bytes, source: str, *, decimal: DecimalMark | None = None) -> Table:
    """Read a CSV file, plain or gzipped.

    Args:
        source: the file's name, for messages.
        decimal: the decimal mark, where the file leaves it open.

    Raises:
        TableError: names the file, the line, what was expected and what came.
    """
    text, remarks = _decode(content, source)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise TableError(_NO_TEXT.format(source))
    if separator := _SEPARATOR_LINE.fullmatch(lines[first].strip(" ")):
        lines[first] = ""
        delimiter = separator["mark"]
        found = _split(lines, delimiter, source).checked()
    else:
        delimiter, found = _choose_delimiter(lines, source)
    if not found:
        raise TableError(_NO_TEXT.format(source))
    header, *rows = found
    width = _width(header)
    names = tuple(header.cells[:width])
    _require_names(names, f"{source}, line {header.line}")
    if not rows:
        raise TableError(f"{source}: expected rows below the header, got none")
    for row in rows:
        _require_width(row, width, f"{source}, line {row.line}", delimiter)
    return Table(source, names, delimiter, header.line, remarks, decimal, rows)


def _decode(content: bytes, source: str) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and remarks about its encoding."""
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise TableError(f"{source}: expected a gzip file, got {error}") from error
    for start, kind in _OTHER_FILES.items():
        if content.startswith(start):
            raise TableError(f"{source}: expected a CSV file, got {kind}; save it as CSV")
    try:
        if content.startswith(_UTF16_MARKS):
            return content.decode("utf-16"), ()
        if b"\0" in content:
            raise TableError(
                f"{source}: expected UTF-8, or UTF-16 with its mark, got zero bytes; save it as "
                "CSV UTF-8"
            )
        return content.decode("utf-8-sig"), ()
    except UnicodeDecodeError as error:
        if error.encoding.startswith("utf-16"):
            raise TableError(f"{source}: expected UTF-16, as its mark says, got {error}") from error
        line = error.object.count(b"\n", 0, error.start) + 1
        place = f"{source}, line {line}"
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise TableError(
            f"{place}: expected UTF-8 or Windows-1252, got the byte "
            f"0x{content[error.start]:02x}; save it as CSV UTF-8"
        ) from error
    remark = (
        f"{place}: not UTF-8, so the file is read as Windows-1252; if letters are wrong, save it "
        "as CSV UTF-8"
    )
    return text, (remark,)


def _choose_delimiter(lines: Sequence[str], source: str) -> tuple[str, list[_Row]]:
    """The delimiter by rule 2, and the rows that it makes."""
    found: list[tuple[int, str, _Rows]] = []
    header = next(line for line in lines if line.strip())
    # A header that goes over several lines has a quote.
    present = [mark for mark in _DELIMITERS if mark in header or '"' in header]
    for delimiter in present or _DELIMITERS[:1]:
        split = _split(lines, delimiter, source)
        width = _width(split.rows[0]) if split.rows else 0
        whole = sum(_width(row) <= width <= len(row.cells) for row in split.rows)
        found.append((whole if width > 1 else 0, delimiter, split))
    whole, delimiter, split = max(found, key=lambda each: each[0])
    if not whole and not any("," in cell for row in split.rows for cell in row.cells):
        # One column without a comma in it: commas would separate columns, not decimals.
        delimiter = ","
    return delimiter, split.checked()


class _Rows(NamedTuple):
    """The rows up to an error, if there is one."""

    rows: list[_Row]
    error: TableError | None = None

    def checked(self) -> list[_Row]:
        if self.error is not None:
            raise self.error
        return self.rows


def _split(lines: Sequence[str], delimiter: str, source: str) -> _Rows:
    """The cells of each line that is not blank; quoted cells may go over several lines."""
    # The csv module refuses spaces between a quote and the delimiter.
    closing = re.compile(rf'" +(?={re.escape(delimiter)}|$)')
    reader = csv.reader(
        ((closing.sub('"', line) if '"' in line else line) + "\n" for line in lines),
        delimiter=delimiter,
        skipinitialspace=True,
        strict=True,
    )
    rows: list[_Row] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            place = f"{source}, line {number}"
            return _Rows(rows, TableError(f"{place}: expected CSV, got {error}"))
        if cells is None:
            return _Rows(rows)
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            rows.append(_Row(number, stripped))


def _width(row: _Row) -> int:
    """The number of cells up to the last one with text."""
    last_first = range(len(row.cells), 0, -1)
    return next((at for at in last_first if row.cells[at - 1]), 0)


def _require_names(names: Sequence[str], place: str) -> None:
    if all(is_number(name) or is_date(name) for name in names if name):
        shown = ", ".join(names)
        raise TableError(
            f"{place}: expected a header line with the names of the columns, got {shown}"
        )


def _require_width(row: _Row, width: int, place: str, delimiter: str) -> None:
    if len(row.cells) >= width >= _width(row):
        return
    found = len(row.cells) if len(row.cells) < width else _width(row)
    hint = ""
    if delimiter == "," and found > width:
        hint = "; if commas separate decimals, put semicolons between the columns, or quote numbers"
    raise TableError(f"{place}: expected {width} columns as in the header, got {found}{hint}")


def _require_rising(column: DateColumn) -> None:
    """Refuse a table with the newest row first; it would be read backwards."""
    if column.doubt or len(column.dates) < 3:
        return
    if all(date < before for before, date in pairwise(column.dates)):
        first, second = (column.show(date) for date in column.dates[:2])
        raise TableError(
            f"{column.cells[1].place}, column {column.name}: expected the oldest row first, got "
            f"{second} after {first}; sort the rows by date"
        )


def _counts_rows(texts: Sequence[str]) -> bool:
    """Whether a column only numbers the rows."""
    if len(texts) < 3 or not all(_ROW_NUMBER.fullmatch(text) for text in texts):
        return False
    return all(int(text) == int(before) + 1 for before, text in pairwise(texts))


def _is_not_finite(text: str) -> bool:
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return False
