"""The playground's modules without a browser, by Node: their tests, and their Python peers."""

import json
import shutil
import subprocess
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

import weir.gateway
from weir.bundle.date_column import read_dates
from weir.bundle.errors import TableError
from weir.bundle.number_format import Cell

pytestmark = [pytest.mark.ops, pytest.mark.timeout(120)]

STATIC = Path(weir.gateway.__file__).parent / "static"
TESTS = Path(__file__).parent / "playground"
AHEAD = 7
_FOLLOWING = """
import { followingDates, readDates, showDate } from "./static/playground/date_column.js";

const found = JSON.parse(process.argv[2]).map((texts) => {
  const column = readDates(texts);
  if (column === null) return null;
  const { dates } = followingDates(column, Number(process.argv[3]));
  return dates && dates.map((date) => showDate(date, column.unit));
});
console.log(JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's modules and their tests, in a folder that tells Node what they are."""
    folder = tmp_path_factory.mktemp("modules")
    shutil.copytree(STATIC, folder / "static")
    for test in TESTS.glob("*.test.js"):
        shutil.copy(test, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def node(folder: Path, *arguments: str) -> str:
    command = ["node", *arguments]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize("name", [test.name for test in sorted(TESTS.glob("*.test.js"))])
def test_module(modules: Path, name: str) -> None:
    node(modules, "--test", name)


def days(first: str, step: int = 1, count: int = 10, form: str = "%Y-%m-%d") -> list[str]:
    start = date.fromisoformat(first)
    return [(start + timedelta(days=step * at)).strftime(form) for at in range(count)]


COLUMNS = {
    "days": days("2024-02-25"),
    "days over a year": days("2023-12-28"),
    "weeks as days": days("2024-01-01", 7),
    "weekdays": [
        each for each in days("2024-01-01", count=14) if date.fromisoformat(each).weekday() < 5
    ],
    "slashes, year first": days("2024-02-25", form="%Y/%m/%d"),
    "no separators": days("2024-02-25", form="%Y%m%d"),
    "points, day first": days("2024-02-25", form="%d.%m.%Y"),
    "slashes, day first": days("2024-02-10", form="%d/%m/%Y"),
    "slashes, month first": days("2024-02-10", form="%m/%d/%Y"),
    "hyphens, day first": days("2024-02-10", form="%d-%m-%Y"),
    "slashes, decided by their steps": ["1/2/2024", "2/2/2024", "3/2/2024"],
    "slashes, in doubt": ["1/1/2024", "2/2/2024", "3/3/2024"],
    "slashes, really in doubt": ["1/2/2024", "1/4/2024"],
    "names of months": days("2024-02-25", form="%d %b %Y"),
    "long names, month first": days("2024-02-25", form="%B %d, %Y"),
    "months": ["2023-11", "2023-12", "2024-01"],
    "months by name": ["Nov 2023", "Dec 2023", "Jan 2024"],
    "months first": ["11/2023", "12/2023", "01/2024"],
    "months as days": ["2023-11-01", "2023-12-01", "2024-01-01"],
    "ends of months": ["2023-11-30", "2023-12-31", "2024-01-31"],
    "the 30th, without a February": ["2023-10-30", "2023-11-30", "2023-12-30"],
    "every second month": ["2023-10", "2023-12", "2024-02"],
    "quarters": ["2023-Q3", "2023-Q4", "2024-Q1"],
    "quarters first": ["Q3 2023", "Q4 2023", "Q1 2024"],
    "quarters as days": ["2023-09-30", "2023-12-31", "2024-03-31"],
    "weeks": ["2020-W51", "2020-W52", "2020-W53", "2021-W01"],
    "a week that its year lacks": ["2021-W52", "2021-W53"],
    "years": ["1949", "1950", "1951"],
    "years that do not rise by one": ["1949", "1951", "1953"],
    "years as days": ["2019-02-28", "2020-02-28", "2021-02-28"],
    "leap years": ["2016-02-29", "2020-02-29", "2024-02-29"],
    "hours": ["2024-02-28 22:00", "2024-02-28 23:00", "2024-02-29 00:00"],
    "quarters of an hour": ["2024-02-28T23:30", "2024-02-28T23:45", "2024-02-29T00:00"],
    "seconds": ["2024-02-28 23:59:58", "2024-02-28 23:59:59", "2024-02-29 00:00:00"],
    "times without midnight's": ["2024-02-28 12:00", "2024-02-29", "2024-02-29 12:00"],
    "a gap": ["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06"],
    "no step": ["2024-01-01", "2024-01-02", "2024-01-05"],
    "falling": ["2024-01-03", "2024-01-02", "2024-01-01"],
    "no such day": ["2024-02-29", "2024-02-30"],
    "no dates": ["1.5", "2.5"],
    "words": ["Monday", "Tuesday"],
    "two formats": ["2024-01-01", "2.1.2024"],
    "the end of time": ["9999-12-30", "9999-12-31"],
}


def following(texts: list[str]) -> list[str] | None:
    """The dates that `weir forecast` gives; None if it finds none."""
    cells = [Cell("file", at, text) for at, text in enumerate(texts, 2)]
    column = read_dates("day", cells)
    if column is None:
        return None
    try:
        return [column.show(each) for each in column.following(AHEAD)]
    except TableError:
        return None


def test_dates_follow_as_those_of_the_command(modules: Path) -> None:
    (modules / "following.js").write_text(_FOLLOWING)
    columns = json.dumps(list(COLUMNS.values()))

    found: list[Any] = json.loads(node(modules, "following.js", columns, str(AHEAD)))

    assert dict(zip(COLUMNS, found, strict=True)) == {
        name: following(texts) for name, texts in COLUMNS.items()
    }
