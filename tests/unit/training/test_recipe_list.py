"""The list of recipes: what each is for, what it takes, and how long."""

import re
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from weir.training.recipe_list import (
    GROUPS,
    RECORDED_S,
    describe_recipe,
    describe_recipes,
    machine_factor,
)
from weir.training.recipes import MADE_FOR, RECIPES


def shown(content: RenderableType, width: int = 80) -> str:
    screen = StringIO()
    Console(file=screen, width=width).print(content)
    return screen.getvalue()


def seconds(duration: str) -> float:
    value, unit = duration.split(" ")
    return float(value) * {"s": 1, "min": 60, "h": 3600}[unit]


def test_every_recipe_has_one_line_with_its_purpose_and_its_time_at_80_columns() -> None:
    text = shown(describe_recipes(1.0))

    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [re.fullmatch(r"  (\S+)  +(\S.*\S)  +(\d+ (?:s|min|h)) *", line) for line in lines]
    found = {row[1]: row for row in rows if row}
    assert {*found} == {*RECIPES}
    for name, row in found.items():
        assert seconds(row[3]) == pytest.approx(RECORDED_S[name], rel=0.5, abs=0.5)


def test_each_group_says_what_its_file_looks_like_and_what_to_type() -> None:
    text = shown(describe_recipes(1.0))

    for form in (
        "a folder of pictures for each class",
        "LABEL<TAB>text",
        "word/TAG word/TAG",
        "source<TAB>target",
        "a CSV file with a header",
    ):
        assert form in text
    for group in GROUPS:
        verb, train, recipe, *options = group.command.split()
        assert (verb, train) == ("weir", "train") and recipe in group.recipes
        assert "PATH" in MADE_FOR[recipe] and options[0] == "--data"


def test_a_slower_machine_is_shown_longer_times() -> None:
    def total(factor: float) -> float:
        times = re.findall(r"  (\d+ (?:s|min|h)) *$", shown(describe_recipes(factor)), re.MULTILINE)
        return sum(map(seconds, times))

    assert total(10.0) > 5 * total(1.0)
    assert "times 3.5" in shown(describe_recipes(3.5), 200)


def test_the_machine_is_timed_by_a_product() -> None:
    assert 0.001 < machine_factor() < 1000.0


def test_one_recipe_shows_its_data_sets_and_settings() -> None:
    text = shown(describe_recipe("lenet5"))

    assert [name for name in (*MADE_FOR["lenet5"][:-1], "your own") if name not in text] == []
    assert "0.003" in text and "adamw" in text


def test_settings_that_follow_the_data_are_told() -> None:
    assert "number of words decides" in shown(describe_recipe("tagger"), 200)
    (row,) = (
        line for line in shown(describe_recipe("question")).splitlines() if "--tokens" in line
    )
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        "your own, --tokens letters", "20", "64", "adamw", "0.003",
    ]  # fmt: skip
