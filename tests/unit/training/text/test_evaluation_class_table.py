from pathlib import Path

import pytest
from PIL import Image

from weir.training.text.evaluation import MOST_CLASSES, ClassScore, draw_class_table


def lines(labels: list[str]) -> list[ClassScore]:
    return [ClassScore(label, 0.5, 1.0, 2 / 3, 1000 - row) for row, label in enumerate(labels)]


def height_of(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.height


def test_a_class_more_is_a_line_more_up_to_a_bound(tmp_path: Path) -> None:
    heights = []
    for count in (2, 30, MOST_CLASSES, MOST_CLASSES + 40):
        path = tmp_path / f"{count}.png"
        draw_class_table(lines([f"class {number}" for number in range(count)]), "run", path)
        heights.append(height_of(path))

    assert heights[0] < heights[1] < heights[2] == heights[3]


@pytest.mark.parametrize(
    "labels",
    [["$", "PRP$", "WP$"], ["$^$", "$x$"], ["名词", "动词"], ["_", r"\frac", "a" * 60]],
    ids=["treebank", "no formula", "other script", "odd"],
)
def test_any_label_can_be_drawn(labels: list[str], tmp_path: Path) -> None:
    draw_class_table(lines(labels), "run on $^$.txt", tmp_path / "table.png")

    assert height_of(tmp_path / "table.png") > 100
