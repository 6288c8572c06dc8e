"""Time series from CSV files, valid and broken."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from weir.training.data.series import load_series
from weir.training.errors import DataError


def write(folder: Path, text: str) -> str:
    path = folder / "sales.csv"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        "month,sales,price\n1,10,0.5\n2,-2e1,.25\n",
        '"month";"sales";"price"\n"1, January";10;0.5\n\n2;"-20";0.25',
        "month\tsales\tprice\r\n1\t10\t0.5\r\n2\t -20.0 \t+0.25\r\n",
        '\ufeffmonth,"sales",price\n1,10,0.5\n"2,\nFebruary",-20,0.25\n',
    ],
    ids=["commas", "semicolons", "tabs", "mark-and-line-in-quotes"],
)
def test_columns_are_found_by_name(tmp_path: Path, text: str) -> None:
    data = load_series(write(tmp_path, text), "sales", ["price"])

    np.testing.assert_array_equal(data.values, [[10.0, 0.5], [-20.0, 0.25]])
    assert data.columns == ("sales", "price")


def test_a_gzipped_file_of_one_column_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv.gz"
    path.write_bytes(gzip.compress(b"sales\n1\n2\n"))

    assert load_series(str(path), "sales").values.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"sales\.csv: expected a CSV file with a header, got no text"),
        ("sales,price\n", r"sales\.csv: expected rows below the header, got none"),
        (
            "month,price\n1,2\n",
            "line 1: expected a column 'sales', got none; there are month, price",
        ),
        ("sales,sales\n1,2\n", "line 1: expected a column 'sales', got 2 of that name"),
        ("sales,price\n1,2\n3\n", "line 3: expected 2 columns as in the header, got 1"),
        ("sales,price\n1,2\n,4\n", "line 3, column sales: expected a number, got an empty cell"),
        ("sales,price\n1,2\n3,dear\n", "line 3, column price: expected a number, got 'dear'"),
        ("sales;price\n1.234;2\n", r"line 2: 1\.234 may be 1\.234 or 1234; say --decimal point or"),
        ("sales,price\n1_000,2\n", "line 2, column sales: expected a number, got '1_000'"),
        ("sales,price\nNaN,2\n", "line 2, column sales: expected a finite number .*, got 'NaN'"),
        ("sales,price\n-inf,2\n", "expected a finite number of 32 bits, got '-inf'"),
        ("sales,price\n1e39,2\n", "expected a finite number of 32 bits, got '1e39'"),
        ('sales,price\n1,2\n"3"x,4\n', "line 3: expected CSV, got"),
        ('sales,price\n1,2\n3,"4\n', "line 3: expected CSV, got"),
    ],
    ids=[
        "empty", "header-only", "missing", "twice", "short", "blank-cell", "word", "decimal-mark",
        "underscore",
        "nan", "inf", "32-bits", "quote", "open-quote",
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_line_and_column(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_series(write(tmp_path, text), "sales", ["price"])


def test_without_a_column_the_error_lists_the_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\(--value\); there are month, sales"):
        load_series(write(tmp_path, "month,sales\n1,2\n"), None)
    with pytest.raises(DataError, match='there are "sales, EUR", "6"" pipes", price'):
        load_series(write(tmp_path, '"sales, EUR","6"" pipes",price\n1,2,3\n'), None)


def test_the_newest_row_first_is_refused_with_a_given_decimal_mark_too(tmp_path: Path) -> None:
    path = write(tmp_path, "month,sales\n2024-03,1\n2024-02,2\n2024-01,3\n")

    with pytest.raises(DataError, match="expected the oldest row"):
        load_series(path, "sales", decimal="point")


def test_only_column_of_numbers_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(
        tmp_path, 'Monat;"Umsatz, EUR";Preis\n1.1.2024;1,5;2\n1.2.2024;2;3\n1.3.2024;7;3\n'
    )

    data = load_series(path, None, ["Preis"])

    assert data.columns == ("Umsatz, EUR", "Preis")
    np.testing.assert_array_equal(data.values, [[1.5, 2.0], [2.0, 3.0], [7.0, 3.0]])
    assert caplog.messages == [f"{path}: the only column of numbers is forecast: Umsatz, EUR"]


def test_rows_at_unequal_steps_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, "day,sales\n2024-01,1\n2024-02,2\n2024-03,2\n2024-05,3\n")

    series = load_series(path, "sales")

    (message,) = caplog.messages
    assert series.dates is None
    assert message.startswith(f"{path}, line 5, column day: expected a date 1 month after 2024-03")
    assert message.endswith("got 2024-05; rows are read as equal steps")


def test_dates_in_doubt_are_not_those_of_the_series(tmp_path: Path) -> None:
    path = write(tmp_path, "day,sales\n1/1/2024,1\n2/2/2024,2\n4/3/2024,2\n3/4/2024,3\n")

    assert load_series(path, "sales").dates is None


def test_doubtful_decimal_mark_is_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, "sales;price\n1.234;2\n")

    assert load_series(path, "sales", decimal="comma").values.tolist() == [[1234.0]]


def test_an_unknown_name_is_answered_with_the_known() -> None:
    with pytest.raises(DataError, match=r"moonspots: neither a series \(sunspots\) nor a CSV file"):
        load_series("moonspots", None)


@pytest.mark.usefixtures("weir_data")
def test_the_sunspots_are_all_there() -> None:
    data = load_series("sunspots", None)

    assert data.values.shape == (2_820, 1) and data.columns == ("Sunspots",)
    assert (data.values[0, 0], data.values.max()) == (58.0, 253.8)
