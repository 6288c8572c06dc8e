"""Validation and split of text sets."""

import numpy as np
import pytest

from weir.training.data.text import TextData, TextRow, divide_text
from weir.training.errors import DataError


def classified(counts: dict[str, int]) -> TextData:
    rows = [
        TextRow((name, str(number)), (name,)) for name, n in counts.items() for number in range(n)
    ]
    return TextData.of("x", rows, is_tagged=False, checksum="")


def test_rows_are_taken_in_the_given_order() -> None:
    data = classified({"b": 2, "a": 1})

    taken = data.take(np.array([2, 0]))

    assert taken.rows == (("a", "0"), ("b", "0")) and taken.labels == (("a",), ("b",))
    assert data.classes == ("a", "b") and data.take(np.array([0])).classes == ("b",)


@pytest.mark.parametrize(
    ("tokens", "labels", "is_tagged", "message"),
    [
        ((), (), True, "x, row 1: expected tokens, got none"),
        (("a", "b"), ("A",), True, "x, row 1: expected 2 labels for 2 tokens, got 1"),
        (("a", "b"), ("A", "B"), False, "x, row 1: expected 1 labels for 2 tokens, got 2"),
    ],
    ids=["empty row", "too few tags", "too many labels"],
)
def test_labels_must_go_with_rows(
    tokens: tuple[str, ...], labels: tuple[str, ...], *, is_tagged: bool, message: str
) -> None:
    rows = [TextRow(("a",), ("A",)), TextRow(tokens, labels)]

    with pytest.raises(DataError, match=message):
        TextData.of("x", rows, is_tagged=is_tagged, checksum="")


def test_each_row_needs_labels() -> None:
    with pytest.raises(DataError, match="x: 1 rows do not go with labels of 0"):
        TextData("x", (("a",),), (), is_tagged=True, checksum="")


def test_a_share_of_each_class_is_held_out() -> None:
    data = classified({"a": 20, "b": 10, "c": 2})

    division = divide_text(data, 0.1, seed=3)

    held_out = data.take(division.held_out)
    assert [labels[0] for labels in held_out.labels] == ["a", "a", "b", "c"]
    assert not set(held_out.rows) & set(data.take(division.kept).rows)


def test_a_share_of_tagged_rows_is_held_out_whatever_their_tags() -> None:
    rows = [TextRow((str(number),), (str(number),)) for number in range(100)]
    data = TextData.of("x", rows, is_tagged=True, checksum="")

    first, again, other = (divide_text(data, 0.1, seed) for seed in (1, 1, 2))

    assert len(first.held_out) == 10 and len(first.kept) == 90
    np.testing.assert_array_equal(first.held_out, again.held_out)
    assert first.held_out.tolist() != other.held_out.tolist()
