"""Tokens of a file beside those that the server would cut."""

import pytest

from weir.training.data.text import TextData, TextRow
from weir.training.text.served_tokens import compare_served_tokens


def tagged(*rows: tuple[str, str | None]) -> TextData:
    """A set of rows; their tokens stand between bars."""
    read = [(tuple(tokens.split("|")), text) for tokens, text in rows]
    return TextData.of(
        "x.conllu",
        [TextRow(tokens, ("X",) * len(tokens), text) for tokens, text in read],
        is_tagged=True,
        checksum="0",
    )


@pytest.mark.parametrize(
    "row",
    [("They|buy|books|.", "They buy books."), ("a|b", None), ("can|'|t", None)],
    ids=["text", "no text", "apostrophe"],
)
def test_equal_tokens_are_no_difference(row: tuple[str, str | None]) -> None:
    assert compare_served_tokens(tagged(row), "words") is None


@pytest.mark.parametrize(
    ("row", "own", "served"),
    [
        (("I|do|n't|go", "I don't go"), ("do", "n't"), ("don", "'", "t")),
        (("de|le|pain", "du pain"), ("de", "le"), ("du",)),
        (("20 000|euros", "20 000 euros"), ("20 000",), ("20", "000")),
        (("\u4e2d\u56fd|\u4eba", "\u4e2d\u56fd\u4eba"), ("\u4e2d\u56fd",), ("\u4e2d", "\u56fd")),
        (("20 000|euros", None), ("20 000",), ("20", "000")),
        (("a|b", "a"), ("b",), ()),
    ],
    ids=["contraction", "multiword token", "space inside", "no spaces", "no text", "shorter"],
)
def test_first_difference_is_found(
    row: tuple[str, str | None], own: tuple[str, ...], served: tuple[str, ...]
) -> None:
    found = compare_served_tokens(tagged(row), "words")

    assert found is not None and (found.own, found.served) == (own, served)


def test_rows_are_counted_and_the_clearest_difference_shown() -> None:
    data = tagged(("I|do|n't", "I don't"), ("a|b", "a b"), ("M.|X", "M. X"), ("x|a", "y a"))

    found = compare_served_tokens(data, "words")

    assert found is not None
    assert found.describe(data).startswith(
        "x.conllu: in 3 of 4 training rows the server would cut the text into other tokens than "
        "the file's, such as 'M' + '.' for 'M.'"
    )


def test_rule_of_the_recipe_cuts() -> None:
    assert compare_served_tokens(tagged(("don't|go", "don't  go")), "spaces") is None
