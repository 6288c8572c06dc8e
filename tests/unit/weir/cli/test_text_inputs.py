import pytest

from weir.cli.text_inputs import read_columns
from weir.client.errors import UsageError


def read(text: str, *wanted: str) -> dict[str, list[float]]:
    return read_columns(text.splitlines(), "data.csv", wanted)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_columns_of_numbers_are_found(delimiter: str) -> None:
    text = 'day, "sales, net" ,b\n\nmon, 1 ,2e1\ntue,-3.5,4\n'.replace(",", delimiter)

    assert read(text) == {f"sales{delimiter} net": [1.0, -3.5], "b": [20.0, 4.0]}


def test_selected_columns_keep_the_selected_order() -> None:
    assert list(read("a,b\n1,2\n", "b", "a").items()) == [("b", [2.0]), ("a", [1.0])]


@pytest.mark.parametrize(
    ("text", "wanted", "message"),
    [
        ("", [], "data.csv: expected a header line and rows of numbers, got nothing"),
        ("a,b\n1,2\n3\n", [], "data.csv, line 3: expected 2 cells, got 1"),
        ("a\nx\n", [], "data.csv: expected a column of numbers, got none"),
        ("a\n", [], "data.csv: expected a column of numbers, got none"),
        ("a,b\n1,2\n", ["c"], "data.csv: expected one column 'c', got 'a', 'b'"),
        ("a,a\n1,2\n", ["a"], "data.csv: expected one column 'a', got 'a', 'a'"),
        (
            "a\n1\n\nnan\n",
            ["a"],
            "data.csv, line 4, column 'a': expected a finite number, got 'nan'",
        ),
        (
            "day,a,b\nmon,1,2\ntue,NA,3\n",
            [],
            "data.csv, line 3, column 'a': expected a finite number, got 'NA'",
        ),
        (
            "a,b\n1,1_000\n",
            ["b"],
            "data.csv, line 2, column 'b': expected a finite number, got '1_000'",
        ),
        ("a,a\n1,2\n", [], "data.csv: expected one column 'a', got 'a', 'a'"),
        (
            'a\n"' + 200_000 * "1\n",
            [],
            "data.csv: expected CSV: field larger than field limit (131072)",
        ),
    ],
    ids=[
        "nothing",
        "cells",
        "texts",
        "header",
        "unknown",
        "twice",
        "not finite",
        "one gap",
        "underscore",
        "twice, not named",
        "a quote that does not end",
    ],
)
def test_what_cannot_be_read_is_named(text: str, wanted: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text, *wanted)

    assert str(caught.value) == message
