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


def test_one_column_is_sent_without_its_name(weir: Weir, fake: FakeServer, data: Path) -> None:
    done = weir(
        "forecast",
        data,
        "--column",
        "price",
        "--json",
        "--model",
        "rising",
        "--target",
        fake.target,
    )

    assert sent(fake) == {"": [10.0, 20.0]}
    assert json.loads(done.out) == {"name": "sales", "values": [21.0, 22.0, 23.0]}


def test_interval_is_shown_beside_the_values(weir: Weir, fake: FakeServer, data: Path) -> None:
    asked = ["forecast", data, "--column", "sales", "--model", "wide", "--target", fake.target]

    table = weir(*asked, "--horizon", 1).out
    described = json.loads(weir(*asked, "--horizon", 1, "--json").out)

    assert "80% from" in table
    assert [word for word in table.split() if word[0].isdigit()][-4:] == ["1", "3.5", "2.5", "5.5"]
    assert described == {
        "name": "sales",
        "values": [3.5],
        "lower": [2.5],
        "upper": [5.5],
        "level": 0.8,
    }


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
        (["DATA", "--column", "rain"], "expected one column 'rain', got 'Month', 'sales'"),
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


def test_a_file_that_is_not_utf8_is_refused(
    weir: Weir, fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "Monat,Verkäufe,b\n1,2,3\n".encode("latin-1")
    monkeypatch.setattr("sys.stdin", standard_input(content))
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    order = ["--model", "rising", "--target", fake.target]

    piped, read = weir("forecast", "-", *order), weir("forecast", path, *order)

    assert piped.code == read.code == 2 and not fake.tasks.requests
    assert piped.err == "weir: standard input, line 1: expected UTF-8, got other bytes\n"
    assert read.err == f"weir: {path}, line 1: expected UTF-8, got other bytes\n"
