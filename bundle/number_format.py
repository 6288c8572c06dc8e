"""Decimal mark of a file of numbers: a point or a comma, decided for the file as a whole.

Rules:

1. A cell that is a number with one mark only is evidence for that mark: 1.5, 0.123 and 1,234.5 for
   the point; 1,5, 0,123 and 1.234,5 for the comma.
2. 1.234 and 1,234 are numbers with both marks, of different value. They are no evidence, and the
   other cells decide.
3. Thousands may be separated by the mark that does not separate decimals, by spaces or by
   apostrophes, in groups of three.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import Literal, NamedTuple, TypeAlias, get_args

from weir.bundle.errors import TableError

DecimalMark: TypeAlias = Literal["point", "comma"]
DECIMAL_MARKS: tuple[DecimalMark, ...] = get_args(DecimalMark)

_SPACES_AND_APOSTROPHES = " \u00a0\u2009\u202f'\u2019"
_MINUS_SIGN = "\u2212"


class Cell(NamedTuple):
    """A cell with its place: `FILE, line NUMBER`."""

    place: str
    text: str


class Reading(NamedTuple):
    """A cell as a number with either mark; None where it is none."""

    cell: Cell
    point: float | None
    comma: float | None


def parse_number(text: str, mark: DecimalMark) -> float | None:
    """The number in a cell, which may be infinite if it is too large; None if there is none."""
    if text.isdecimal() and text.isascii():
        return float(text)
    text = text.replace(_MINUS_SIGN, "-")
    found = _pattern(mark).fullmatch(text)
    if found is None:
        return None
    whole = re.sub(r"\D", "", found["whole"] or "")
    return float(f"{found['sign']}{whole or 0}.{found['decimals'] or 0}{found['power'] or ''}")


def read_number(cell: Cell) -> Reading | None:
    """A cell with both marks; None if it is a number with neither."""
    point, comma = (parse_number(cell.text, mark) for mark in DECIMAL_MARKS)
    return None if point is None and comma is None else Reading(cell, point, comma)


def is_number(text: str) -> bool:
    """Whether a cell is a number with a decimal point or a decimal comma."""
    return any(parse_number(text, mark) is not None for mark in DECIMAL_MARKS)


def decide_mark(readings: Iterable[Reading], source: str, *, delimiter: str) -> DecimalMark:
    """The decimal mark of a file; TableError if its cells contradict each other or leave it open.

    A comma or tab between columns makes 1.234 a decimal number. After a semicolon it may be 1234:
    programs use semicolons where the comma separates decimals.

    Args:
        readings: the cells of the columns that hold numbers only.
        delimiter: between the columns.
    """
    proofs: dict[DecimalMark, Cell] = {}
    doubts: dict[str, Reading] = {}
    for reading in readings:
        cell, point, comma = reading
        if point == comma:
            continue
        if point is None or comma is None:
            proofs.setdefault("comma" if point is None else "point", cell)
        else:
            doubts.setdefault("," if "," in cell.text else ".", reading)
    if len(proofs) == 2:
        point_cell, comma_cell = proofs["point"], proofs["comma"]
        raise TableError(
            f"{source}: expected one decimal mark, got {point_cell.text!r} "
            f"({_line(point_cell, source)}) and {comma_cell.text!r} ({_line(comma_cell, source)}); "
            "write all numbers alike, or choose by --decimal point or --decimal comma"
        )
    if proofs:
        return next(iter(proofs))
    doubt = doubts.get(",") or (doubts.get(".") if delimiter == ";" else None)
    if doubt is not None:
        raise TableError(
            f"{doubt.cell.place}: {doubt.cell.text} may be {doubt.point:.10g} or "
            f"{doubt.comma:.10g}; say --decimal point or --decimal comma"
        )
    return "point"


def _line(cell: Cell, source: str) -> str:
    return cell.place.removeprefix(f"{source}, ")


@cache
def _pattern(mark: DecimalMark) -> re.Pattern[str]:
    decimal, thousands = (r"\.", ",") if mark == "point" else (",", ".")
    groups = "[" + re.escape(thousands + _SPACES_AND_APOSTROPHES) + "]"
    return re.compile(
        r"(?P<sign>[+-]?)"
        rf"(?=\d|{decimal}\d)"
        rf"(?P<whole>[1-9]\d{{0,2}}(?:(?P<group>{groups})\d{{3}}(?:(?P=group)\d{{3}})*)|\d+)?"
        rf"(?:{decimal}(?P<decimals>\d*))?"
        r"(?P<power>[eE][+-]?\d+)?",
        re.ASCII,
    )
