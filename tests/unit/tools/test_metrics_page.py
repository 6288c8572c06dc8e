"""The page that describes every metric."""

from pathlib import Path

from tools.metrics_page import PAGE, page

FILE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_page_is_what_the_code_declares() -> None:
    assert FILE.read_text("utf-8") == page(), "docs/metrics.md is stale: run 'make metrics-page'"


def test_every_family_has_a_line_of_six_fields() -> None:
    lines = [line for line in page().splitlines() if line.startswith("| `")]

    names = [family.name for group in PAGE for family in group.families]
    assert [line.split("`")[1] for line in lines] == names
    assert {line.count("|") for line in lines} == {7}
