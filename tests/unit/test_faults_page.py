"""`docs/faults.md` has each row of the catalogue once, and each test that it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
LAST = {"A": 22, "B": 12, "C": 13, "D": 12, "E": 19, "F": 17, "G": 8, "H": 11, "I": 10}
"""The number of each section's last row."""


def test_each_row_is_on_the_page_once() -> None:
    rows = re.findall(r"^\| ([A-I]\d\d) \|", PAGE.read_text(), re.MULTILINE)

    assert sorted(rows) == [
        f"{section}{number:02}" for section, last in LAST.items() for number in range(1, last + 1)
    ]


def test_each_row_names_a_test_or_says_why_there_is_none() -> None:
    for line in PAGE.read_text().splitlines():
        if re.match(r"\| [A-I]\d\d \|", line):
            assert re.search(r"`test_\w+`|\| none \|$", line), line


@pytest.fixture(scope="module")
def defined() -> set[str]:
    """The names of all tests."""
    return {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }


def test_each_test_that_is_named_exists(defined: set[str]) -> None:
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))

    assert named - defined - files == set()
