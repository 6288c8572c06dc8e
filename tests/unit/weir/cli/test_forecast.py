import json
from pathlib import Path

import pytest

from tests.unit.weir.cli.shell import Weir, standard_input
from tests.unit.weir.fake_server import FakeServer

DATA = "Month,sales,price\n2024-01,1.5,10\n\n2024-02,2.5,20\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(DATA)
    return path


def sent(fake: FakeServer) -> dict[str, list[float]]:
    (request,) = fake.tasks.requests
    return {column.name: list(column.values) for column in request.columns}


def test_values_that_follow_are_shown_as_a_table(weir: Weir, fake: FakeServer, data: Path) -> None:
    done = weir("forecast", data, "--horizon", 2, "--model", "rising", "--target", fake.target)

    assert done.code == 0
    assert "sales" in done.out and "3.5" in done.out and "4.5" in done.out
    assert sent(fake) == {"sales": [1.5, 2.5], "price": [10.0, 20.0]}


def test_column_that_is_named_is_sent_as_that_of_the_model(
    weir: Weir, fake: FakeServer, data: Path
) -> None:
    order = ["--column", "price", "--json", "--model", "rising", "--target", fake.target]

    done = weir("forecast", data, *order)

    assert sent(fake) == {"": [10.0, 20.0]}
    assert json.loads(done.out)["name"] == "sales"
    assert done.err == f"weir: 'price' of {data} was taken for 'sales' of the model\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("price\n10\n20\n", "has 'price'; if that is the same series, say --column price\n"),
        ("t,x y\n1,10\n2,20\n3,5\n", "has 'x y'; if that is the same series, say --column 'x y'\n"),
        ("a,b\n1,10\n2,20\n", "has 'a', 'b'; if that is the same series, say --column NAME\n"),
    ],
    ids=["one", "space", "two"],
)  # fmt: skip
def test_column_of_another_name_is_refused_with_what_to_type(
    weir: Weir, fake: FakeServer, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(text)

    done = weir("forecast", path, "--model", "strict", "--target", fake.target)

    assert done.code == 2 and done.out == ""
    assert done.err == f"weir: the model forecasts 'sales', {path} {words}"


NEEDS_BOTH = (
    "the model reads the columns 'sales', 'rain', each by its name; there are 'price'; "
    "name them so in the header"
)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            "exogenous",
            NEEDS_BOTH,
        ),
        (
            "unnamed",
            NEEDS_BOTH,
        ),
        ("long", "expected 48 values or more, got 2"),
    ],
)
def test_columns_that_do_not_suit_the_model_are_refused_with_the_file(
    weir: Weir, fake: FakeServer, tmp_path: Path, model: str, words: str
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("price\n10\n20\n")

    done = weir("forecast", path, "--model", model, "--target", fake.target)

    assert (done.code, done.err) == (2, f"weir: {path}: {words}\n")


def test_forecasts_have_the_dates_of_the_file(weir: Weir, fake: FakeServer, data: Path) -> None:
    order = ["forecast", data, "--horizon", 2, "--model", "rising", "--target", fake.target]

    table, described = weir(*order), json.loads(weir(*order, "--json").out)

    assert described == {"name": "sales", "dates": ["2024-03", "2024-04"], "values": [3.5, 4.5]}
    rows = [line.replace("│", " ").split() for line in table.out.splitlines() if "2024" in line]
    assert rows == [["1", "2024-03", "3.5"], ["2", "2024-04", "4.5"]]
    assert table.err == ""


def test_dates_at_unequal_steps_are_not_continued(
    weir: Weir, fake: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("day,sales\n2024-01-01,1\n2024-01-02,2\n2024-01-03,2\n2024-01-07,3\n")

    done = weir("forecast", path, "--json", "--model", "rising", "--target", fake.target)

    assert json.loads(done.out) == {"name": "sales", "values": [4.0, 5.0, 6.0]}
    assert done.err == (
        f"weir: {path}, line 5, column day: expected a date 1 day after 2024-01-03, got "
        "2024-01-07; steps are counted instead\n"
    )


def test_file_of_european_excel_is_sent(weir: Weir, fake: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(
        'Monat;"Umsatz, €"\r\n1.1.2024;1.234,5\r\n1.2.2024;7,0\r\n;\r\n'.encode("cp1252")
    )

    done = weir("forecast", path, "--json", "--model", "rising", "--target", fake.target)

    assert sent(fake) == {"Umsatz, €": [1234.5, 7.0]}
    assert json.loads(done.out)["dates"] == ["2024-03-01", "2024-04-01", "2024-05-01"]
    assert "line 1: not UTF-8, so the file is read as Windows-1252" in done.err


def test_doubtful_decimal_mark_is_chosen_by_an_option(
    weir: Weir, fake: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("day;sales\n2024-01-01;1.234\n2024-01-02;2.345\n")
    order = ["forecast", path, "--json", "--model", "rising", "--target", fake.target]

    refused, read = weir(*order), weir(*order, "--decimal", "comma")

    assert refused.code == 2 and "--decimal point or --decimal comma" in refused.err
    assert read.code == 0 and sent(fake) == {"sales": [1234.0, 2345.0]}


def test_interval_is_shown_beside_the_values(weir: Weir, fake: FakeServer, data: Path) -> None:
    asked = ["forecast", data, "--column", "sales", "--model", "wide", "--target", fake.target]

    table = weir(*asked, "--horizon", 1).out
    described = json.loads(weir(*asked, "--horizon", 1, "--json").out)

    assert "80% from" in table
    assert [word for word in table.split() if word[0].isdigit()][-4:] == [
        "2024-03",
        "3.5",
        "2.5",
        "5.5",
    ]
    assert described == {
        "name": "sales",
        "dates": ["2024-03"],
        "values": [3.5],
        "lower": [2.5],
        "upper": [5.5],
        "level": 0.8,
    }


def test_cell_that_is_no_number_is_named_with_what_to_type(
    weir: Weir, fake: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("note,sales\n2,1\nx,2\n")

    done = weir("forecast", path, "--model", "rising", "--target", fake.target)

    assert done.code == 2 and not fake.tasks.requests
    assert done.err.endswith(
        "line 3, column note: expected a number, got 'x'; --column NAME sends another column "
        "alone\n"
    )


def test_series_may_come_from_standard_input(
    weir: Weir, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the mark that some editors put before a text in UTF-8."""
    monkeypatch.setattr("sys.stdin", standard_input(b"\xef\xbb\xbf" + DATA.encode()))

    done = weir("forecast", "-", "--json", "--model", "rising", "--target", fake.target)

    assert json.loads(done.out)["values"] == [3.5, 4.5, 5.5]


@pytest.mark.parametrize("columns", [["--column", "price"], []], ids=["one", "all"])
def test_series_and_forecast_are_drawn(
    weir: Weir, fake: FakeServer, data: Path, tmp_path: Path, columns: list[str]
) -> None:
    plot = tmp_path / "plot.png"

    done = weir(
        "forecast", data, *columns, "--plot", plot, "--model", "rising", "--target", fake.target
    )

    assert done.code == 0 and plot.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.csv"], "missing.csv: No such file or directory"),
        (["DATA", "--plot", "plot.jpg"], "--plot: expected a name that ends in .png or .svg"),
        (
            ["DATA", "--column", "rain"],
            "expected a column 'rain', got none; there are Month, sales",
        ),
    ],
    ids=["file", "plot", "column"],
)
def test_unusable_test_sets_are_usage_errors(
    weir: Weir, fake: FakeServer, data: Path, arguments: list[str], message: str
) -> None:
    given = [str(data) if each == "DATA" else each for each in arguments]

    done = weir("forecast", *given, "--model", "rising", "--target", fake.target)

    assert done.code == 2 and message in done.err
    assert not fake.tasks.requests


@pytest.mark.parametrize(
    ("column", "first_day"),
    [("sales", "1"), ("sales", "2024-01-01"), ("price", "2024-01-01 13:00+02:00")],
    ids=["no dates", "dates", "zone"],
)
def test_interval_and_dates_are_drawn(
    weir: Weir, fake: FakeServer, tmp_path: Path, column: str, first_day: str
) -> None:
    path, plot = tmp_path / "data.csv", tmp_path / "plot.svg"
    second = first_day.replace("01-01", "01-02").replace("1", "2", 1 if first_day == "1" else 0)
    path.write_text(f"day,sales,price\n{first_day},1,2\n{second},2,3\n")
    order = ["--column", column, "--model", "wide", "--target", fake.target]

    done = weir("forecast", path, *order, "--plot", plot)

    assert done.code == 0 and ("2024-01-03" in done.out) == (first_day != "1")
    assert plot.stat().st_size > 1000
