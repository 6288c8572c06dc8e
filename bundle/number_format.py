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

_DECIMALS: dict[DecimalMark, str] = {"point": ".", "comma": ","}
_SPACES_AND_APOSTROPHES = " \u00a0\u2009\u202f'\u2019"
_MINUS_SIGN = "\u2212"
_SIGN = f"[+{_MINUS_SIGN}-]?"
_POWER = rf"(?:[eE]{_SIGN}\d+)?"
_HAS_TWO_VALUES = re.compile(rf"{_SIGN}[1-9]\d{{0,2}}[.,]\d{{3}}{_POWER}", re.ASCII)


class Cell(NamedTuple):
    """A cell with its file and line."""

    source: str
    line: int
    text: str

    @property
    def place(self) -> str:
        """`FILE, line NUMBER`, for messages."""
        return f"{self.source}, line {self.line}"


def parse_number(text: str, mark: DecimalMark) -> float | None:
    """The number in a cell, which may be infinite if it is too large; None if there is none."""
    # Most numbers are plain, and their pattern is the faster one.
    if _plain_pattern(mark).fullmatch(text) is None:
        if _grouped_pattern(mark).fullmatch(text) is None:
            return None
        text = _separator_pattern(mark).sub("", text)
    return float(text.replace(_MINUS_SIGN, "-").replace(",", "."))


def is_number(text: str) -> bool:
    """Whether a cell is a number with a decimal point or a decimal comma."""
    return _is_number_with(text, "point") or _is_number_with(text, "comma")


def decide_mark(cells: Iterable[Cell], source: str, *, delimiter: str) -> DecimalMark:
    """The decimal mark of a file; TableError if its cells contradict each other or leave it open.

    A comma or tab between columns makes 1.234 a decimal number. After a semicolon it may be 1234:
    programs use semicolons where the comma separates decimals.

    Args:
        cells: the columns that hold numbers only.
        delimiter: between the columns.
    """
    proofs: dict[DecimalMark, Cell] = {}
    doubts: dict[str, Cell] = {}
    for cell in cells:
        if "." not in cell.text and "," not in cell.text:
            continue
        if _HAS_TWO_VALUES.fullmatch(cell.text):
            doubts.setdefault("," if "," in cell.text else ".", cell)
        else:
            proofs.setdefault("point" if _is_number_with(cell.text, "point") else "comma", cell)
    if len(proofs) == 2:
        point_cell, comma_cell = proofs["point"], proofs["comma"]
        raise TableError(
            f"{source}: expected one decimal mark, got {point_cell.text!r} "
            f"(line {point_cell.line}) and {comma_cell.text!r} (line {comma_cell.line}); "
            "write all numbers alike, or choose by --decimal point or --decimal comma"
        )
    if proofs:
        return next(iter(proofs))
    doubt = doubts.get(",") or (doubts.get(".") if delimiter == ";" else None)
    if doubt is not None:
        values = [parse_number(doubt.text, mark) for mark in DECIMAL_MARKS]
        raise TableError(
            f"{doubt.place}: {doubt.text} may be {values[0]:.10g} or {values[1]:.10g}; "
            "say --decimal point or --decimal comma"
        )
    return "point"


def _is_number_with(text: str, mark: DecimalMark) -> bool:
    """Whether `parse_number` reads a number."""
    found = _plain_pattern(mark).fullmatch(text) or _grouped_pattern(mark).fullmatch(text)
    return found is not None


@cache
def _plain_pattern(mark: DecimalMark) -> re.Pattern[str]:
    """Numbers without groups of thousands."""
    decimal = re.escape(_DECIMALS[mark])
    return re.compile(rf"{_SIGN}(?:\d+(?:{decimal}\d*)?|{decimal}\d+){_POWER}", re.ASCII)


@cache
def _grouped_pattern(mark: DecimalMark) -> re.Pattern[str]:
    """Numbers with groups of thousands."""
    decimal = re.escape(_DECIMALS[mark])
    separator = _separator_pattern(mark).pattern
    return re.compile(
        rf"{_SIGN}[1-9]\d{{0,2}}(?P<separator>{separator})\d{{3}}(?:(?P=separator)\d{{3}})*"
        rf"(?:{decimal}\d*)?{_POWER}",
        re.ASCII,
    )


@cache
def _separator_pattern(mark: DecimalMark) -> re.Pattern[str]:
    """What may separate thousands."""
    other = _DECIMALS["comma" if mark == "point" else "point"]
    return re.compile(f"[{re.escape(other + _SPACES_AND_APOSTROPHES)}]")
