"""CSV files as spreadsheets and programs save them, whole and broken."""

import gzip

import pytest

from weir.bundle.csv_table import Table, read_table
from weir.bundle.errors import TableError
from weir.bundle.number_format import DecimalMark

GERMAN = 'Monat;"Umsatz, EUR";Stück\n01.01.2024;1.234,50;12\n01.02.2024;987,00;7\n'


def read(content: str | bytes, *, decimal: DecimalMark | None = None) -> Table:
    return read_table(
        content.encode() if isinstance(content, str) else content, "data.csv", decimal=decimal
    )


def numbers(content: str | bytes) -> dict[str, list[float]]:
    table = read(content)
    return {name: table.numbers(name) for name in table.number_columns}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_columns_of_numbers_are_found(delimiter: str) -> None:
    text = 'day, "sales, net" ,b\n\nmon, 1 ,2e1\ntue,-3.5,4\n'.replace(",", delimiter)

    assert numbers(text) == {f"sales{delimiter} net": [1.0, -3.5], "b": [20.0, 4.0]}


@pytest.mark.parametrize(
    "content",
    [
        GERMAN,
        GERMAN.replace('"', ""),
        GERMAN.replace("\n", "\r\n"),
        GERMAN.replace("\n", "\r"),
        "\ufeff" + GERMAN,
        GERMAN.encode("utf-16"),
        GERMAN.replace(";", "\t").encode("utf-16"),
        GERMAN.encode("cp1252"),
        gzip.compress(GERMAN.encode()),
        "sep=;\r\n" + GERMAN,
        "\ufeffSEP=;\n" + GERMAN,
        "\n" + GERMAN.replace("Stück\n", "Stück;;\n").replace("12\n", "12;;\n") + ";;;;\n;\n\n",
        GERMAN.replace("1.234,50", "1\u00a0234,50"),
    ],
    ids=[
        "utf-8", "unquoted", "crlf", "cr", "mark", "utf-16", "utf-16 tabs", "cp1252", "gzip",
        "sep", "sep and mark", "empty columns and lines", "no-break space",
    ],
)  # fmt: skip
def test_a_table_of_european_excel_is_read(content: str | bytes) -> None:
    table = read(content)

    assert table.names == ("Monat", "Umsatz, EUR", "Stück")
    assert table.number_columns == table.value_columns == ("Umsatz, EUR", "Stück")
    assert table.numbers("Umsatz, EUR") == [1234.5, 987.0] and table.mark == "comma"
    assert table.dates is not None and str(table.dates.step()) == "1 month"


def test_bytes_of_another_encoding_are_read_with_a_remark() -> None:
    assert read(GERMAN).remarks == ()
    (remark,) = read(GERMAN.encode("cp1252")).remarks
    assert remark.startswith("data.csv, line 1: not UTF-8, so the file is read as Windows-1252;")


def test_a_single_column_may_have_a_decimal_comma() -> None:
    assert numbers("Umsatz\n1,5\n2\n") == {"Umsatz": [1.5, 2.0]}


def test_quoted_numbers_may_have_a_decimal_comma_between_commas() -> None:
    assert numbers('a,b\n"1,5","1.234,5"\n2,3\n') == {"a": [1.5, 2.0], "b": [1234.5, 3.0]}


def test_mark_of_a_file_is_not_decided_cell_by_cell() -> None:
    """1.234 beside 0,5 is a number of four digits, because the comma separates decimals."""
    assert numbers("a;b\n1.234;0,5\n") == {"a": [1234.0], "b": [0.5]}


def test_dates_and_texts_say_nothing_about_the_mark() -> None:
    text = "day;version;sales\n1.2.2024;1.5 beta;0,5\n2.2.2024;2;1\n"

    assert read(text).numbers("sales") == [0.5, 1.0]


def test_chosen_mark_settles_a_doubt() -> None:
    text = "a;b\n1.234;2\n"
    with pytest.raises(TableError, match=r"line 2: 1\.234 may be 1\.234 or 1234; say --decimal"):
        read(text).numbers("b")

    assert read(text, decimal="point").numbers("a") == [1.234]
    assert read(text, decimal="comma").numbers("a") == [1234.0]


def test_column_that_counts_the_rows_is_no_value() -> None:
    table = read(",t,sales\n0,1,3\n1,2,5\n2,3,4\n")

    assert table.number_columns == ("t", "sales") and table.value_columns == ("sales",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "data.csv: expected a CSV file with a header, got no text"),
        ("a,b\n", "data.csv: expected rows below the header, got none"),
        ("sep=;\n", "data.csv: expected a CSV file with a header, got no text"),
        ("a,b\n1,2\n3\n", "data.csv, line 3: expected 2 columns as in the header, got 1"),
        ("a,b\n1,2\n3,4,5\n", "line 3: expected 2 columns as in the header, got 3; if commas"),
        ("a,b\n1,5,2,5\n", "got 4; if commas separate decimals, put semicolons between"),
        ("2024-01,1\n2024-02,2\n", "line 1: expected a header line with the names of the columns"),
        ('a\n"1\n2\n', "data.csv, line 2: expected CSV, got unexpected end of data"),
        (b"PK\x03\x04", "expected a CSV file, got an Excel workbook or another archive; save it"),
        (GERMAN.encode("utf-16-le"), "or UTF-16 with its mark, got zero bytes; save it as CSV"),
        (b"\xff\xfea", "expected UTF-16, as its mark says, got"),
        (b"a\n\x81\n", "line 2: expected UTF-8 or Windows-1252, got the byte 0x81; save it as"),
        (gzip.compress(b"a\n1\n")[:-4], "data.csv: expected a gzip file, got"),
    ],
    ids=[
        "nothing", "header only", "sep only", "short row", "long row", "decimal commas",
        "no header", "open quote", "workbook", "no mark", "half a character", "bytes", "gzip",
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_expected_and_found(content: str | bytes, message: str) -> None:
    with pytest.raises(TableError) as caught:
        read(content)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n1\n\nnan\n", "line 4, column a: expected a finite number of 32 bits, got 'nan'"),
        ("a\n1\n1e39\n", "line 3, column a: expected a finite number of 32 bits, got '1e39'"),
        ("d,a\nx,1\ny,NA\n", "line 3, column a: expected a number, got 'NA'"),
        ("d,a\nx,1\ny,\n", "line 3, column a: expected a number, got an empty cell"),
        ("a\n1\n1_000\n", "line 3, column a: expected a number, got '1_000'"),
        ("b\n1\n", "line 1: expected a column 'a', got none; there are b"),
        ('"a, b"\n1\n', "line 1: expected a column 'a', got none; there are \"a, b\""),
        ("a,a\n1,2\n", "line 1: expected a column 'a', got 2 of that name; there are a, a"),
        ("a;b\n1,5;x\n1.5;y\n", "expected one decimal mark, got '1.5' (line 3) and '1,5' (line 2)"),
        ("m,a\n2024-03,1\n2024-02,2\n2024-01,3\n", "line 3, column m: expected the oldest row"),
        ("m,a\n2024-01,1\n2024-02,2\nTotal,3\n", "line 4, column m: expected a date as in other"),
    ],
    ids=[
        "not finite", "32 bits", "gap", "empty cell", "underscore", "unknown", "comma in a name",
        "twice", "two marks", "newest first", "sum below",
    ],
)  # fmt: skip
def test_a_column_that_is_no_series_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(TableError) as caught:
        read(text).numbers("a")

    assert str(caught.value).removeprefix("data.csv").lstrip(",: ").startswith(message)


def test_chosen_mark_refuses_the_other() -> None:
    with pytest.raises(TableError, match=r"expected a number with a decimal comma, got '1\.5'"):
        read("a;b\n1,5;x\n1.5;y\n", decimal="comma").numbers("a")
