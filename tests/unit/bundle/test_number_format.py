"""The decimal mark of a file, and numbers with it."""

from collections.abc import Sequence

import pytest

from weir.bundle.errors import TableError
from weir.bundle.number_format import Cell, DecimalMark, decide_mark, parse_number


def decide(texts: Sequence[str], delimiter: str = ";") -> DecimalMark:
    cells = (Cell("x.csv", line, text) for line, text in enumerate(texts, 2))
    return decide_mark(cells, "x.csv", delimiter=delimiter)


@pytest.mark.parametrize(
    ("text", "point", "comma"),
    [
        ("12", 12.0, 12.0),
        ("1.5", 1.5, None),
        ("1,5", None, 1.5),
        ("0.123", 0.123, None),
        ("1.234", 1.234, 1234.0),
        ("1,234", 1234.0, 1.234),
        ("1234,567", None, 1234.567),
        ("1.234,5", None, 1234.5),
        ("1,234,567.8", 1234567.8, None),
        ("1 234,5", None, 1234.5),
        ("1\u202f234\u202f567", 1234567.0, 1234567.0),
        ("1'234.5", 1234.5, None),
        ("-2e1", -20.0, -20.0),
        ("\u22123", -3.0, -3.0),
        ("1e\u22122", 0.01, 0.01),
        ("1.234.567", None, 1234567.0),
        ("+.25", 0.25, None),
        ("1,23,456", None, None),
        ("1.234 567", None, None),
        ("1_000", None, None),
        ("12 %", None, None),
        ("\u0661", None, None),
        ("", None, None),
        (".", None, None),
    ],
)
def test_cell_is_read_with_either_mark(text: str, point: float | None, comma: float | None) -> None:
    assert (parse_number(text, "point"), parse_number(text, "comma")) == (point, comma)


@pytest.mark.parametrize(
    ("texts", "delimiter", "mark"),
    [
        (["1.234", "0,5"], ";", "comma"),
        (["1,234", "0.5"], ";", "point"),
        (["1", "2"], ";", "point"),
        (["1.234", "2.345"], ",", "point"),
        (["1.234", "2.345"], "\t", "point"),
    ],
    ids=["comma elsewhere", "point elsewhere", "no mark", "comma between", "tab between"],
)
def test_whole_file_decides_the_mark(texts: list[str], delimiter: str, mark: str) -> None:
    assert decide(texts, delimiter) == mark


@pytest.mark.parametrize(
    ("texts", "delimiter"),
    [(["1.234"], ";"), (["1,234"], ","), (["1.234", "1,234"], ";")],
    ids=["semicolons", "quoted", "both"],
)
def test_doubt_is_an_error_that_says_what_to_type(texts: list[str], delimiter: str) -> None:
    with pytest.raises(
        TableError, match=r"line \d+: 1[.,]234 may be .* or .*; say --decimal point or"
    ):
        decide(texts, delimiter)


def test_two_marks_in_a_file_are_refused_with_both_lines() -> None:
    with pytest.raises(TableError, match=r"'1\.5' \(line 3\) and '1,5' \(line 2\)"):
        decide(["1,5", "1.5"])
