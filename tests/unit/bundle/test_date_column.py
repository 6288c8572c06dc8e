"""Dates of a table in the formats of other programs, and their steps."""

import pytest

from weir.bundle.date_column import DateColumn, read_dates
from weir.bundle.errors import TableError
from weir.bundle.number_format import Cell


def read(*texts: str) -> DateColumn | None:
    return read_dates("day", [Cell("x.csv", n, text) for n, text in enumerate(texts, 2)])


def following(*texts: str) -> list[str]:
    found = read(*texts)
    assert found is not None
    return [found.show(date) for date in found.following(2)]


@pytest.mark.parametrize(
    ("texts", "ahead"),
    [
        (["1949-11", "1949-12"], ["1950-01", "1950-02"]),
        (["2024-02-27", "2024-02-28"], ["2024-02-29", "2024-03-01"]),
        (["2024/01/01", "2024/02/01"], ["2024-03-01", "2024-04-01"]),
        (["20240131", "20240229"], ["2024-03-31", "2024-04-30"]),
        (["1.1.2024", "1.2.2024", "1.3.2024"], ["2024-04-01", "2024-05-01"]),
        (["01.12.68", "01.12.69"], None),
        (["1/12/2024", "1/13/2024"], ["2024-01-14", "2024-01-15"]),
        (["13/1/2024", "14/1/2024"], ["2024-01-15", "2024-01-16"]),
        (["12/11/2024", "12/12/2024", "13/01/2025"], None),
        (["Jan-24", "Feb-24"], ["2024-03", "2024-04"]),
        (["30 Apr 2024", "31 May 2024"], ["2024-06-30", "2024-07-31"]),
        (["December 1, 2023", "December 8, 2023"], ["2023-12-15", "2023-12-22"]),
        (["02/2024", "03/2024"], ["2024-04", "2024-05"]),
        (["2024M11", "2024M12"], ["2025-01", "2025-02"]),
        (["2024-Q1", "2024-Q2"], ["2024-Q3", "2024-Q4"]),
        (["2020-W52", "2020-W53"], ["2021-W01", "2021-W02"]),
        (["1982", "1983"], ["1984", "1985"]),
        (["2024-01-01 22:00", "2024-01-01 23:00"], ["2024-01-02T00:00", "2024-01-02T01:00"]),
        (["2024-01-01T00:00:00Z", "2024-01-01T00:00:05Z"],
         ["2024-01-01T00:00:10+00:00", "2024-01-01T00:00:15+00:00"]),
        (["1/1/2024 11:30 AM", "1/1/2024 12:00 PM"], ["2024-01-01T12:30", "2024-01-01T13:00"]),
        (["2024-01-04", "2024-01-05", "2024-01-08"], ["2024-01-09", "2024-01-10"]),
    ],
)  # fmt: skip
def test_dates_are_continued(texts: list[str], ahead: list[str] | None) -> None:
    if ahead is None:
        with pytest.raises(TableError, match=r"equal steps|expected a date"):
            following(*texts)
    else:
        assert following(*texts) == ahead


@pytest.mark.parametrize(
    "texts",
    [
        ["2024-01-01", "later"],
        ["2024-13-01", "2024-12-01"],
        ["1500", "1700"],
        ["1.5", "2.5"],
        ["Mai 2024", "Juni 2024"],
        ["2024-01-01T00:00", "2024-01-01T01:00Z"],
        ["2024-01-01"],
    ],
    ids=["word", "month 13", "numbers", "decimals", "language", "zones", "one row"],
)
def test_other_cells_are_no_dates(texts: list[str]) -> None:
    assert read(*texts) is None


def test_order_of_day_and_month_is_not_guessed() -> None:
    found = read("1/1/2024", "1/2/2024", "1/3/2024")

    assert found is not None
    with pytest.raises(TableError, match=r"line 2, column day: 1/1/2024 may have the day or the"):
        found.step()


def test_first_unequal_step_is_named() -> None:
    found = read("2024-01", "2024-02", "2024-03", "2024-05", "2024-06")

    assert found is not None
    with pytest.raises(
        TableError, match="line 5, column day: expected a date 1 month after 2024-03, got 2024-05"
    ):
        found.step()


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["2024-01", "2024-07"], "6 months"),
        (["2024-01-01", "2025-01-01"], "1 year"),
        (["2024-01-01", "2024-01-15"], "2 weeks"),
        (["2024-01-01 00:00", "2024-01-01 00:15"], "15 minutes"),
        (["2024-01-01 00:00:00", "2024-01-01 00:00:10"], "10 seconds"),
    ],
)
def test_step_is_said_in_words(texts: list[str], words: str) -> None:
    found = read(*texts)

    assert found is not None and str(found.step()) == words
