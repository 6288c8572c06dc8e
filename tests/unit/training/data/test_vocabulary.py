"""Vocabularies and their text file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.training.data.vocabulary import BEGIN, END, PAD, SPECIAL, UNKNOWN, Vocabulary
from weir.training.errors import DataError

HEAD = "".join(f"{entry}\n" for entry in SPECIAL)
tokens = st.text(min_size=1).filter(lambda token: token.splitlines() == [token])


def test_the_special_entries_have_the_first_ids() -> None:
    vocabulary = Vocabulary.build([])

    assert (PAD, UNKNOWN, BEGIN, END) == (0, 1, 2, 3)
    assert vocabulary.entries == ("<pad>", "<unk>", "<s>", "</s>")


def test_frequent_tokens_come_first_and_equals_in_sorted_order() -> None:
    vocabulary = Vocabulary.build([["b", "c", "a"], ["c", "d", "a"], ["c"]])

    assert vocabulary.entries[4:] == ("c", "a", "b", "d")
    assert Vocabulary.build([["d"], ["a", "c", "c"], ["b", "a", "c"]]) == vocabulary


def test_rare_tokens_and_those_past_the_maximum_are_unknown() -> None:
    rows = [["a", "a", "a", "b", "b", "c"]]

    assert Vocabulary.build(rows, minimum_count=2).encode("abc") == [4, 5, UNKNOWN]
    assert Vocabulary.build(rows, maximum=5).encode("abc") == [4, UNKNOWN, UNKNOWN]
    assert len(Vocabulary.build(rows, maximum=0)) == len(SPECIAL)


def test_a_text_that_spells_a_special_entry_gets_no_special_id() -> None:
    vocabulary = Vocabulary.build([["<pad>", "</s>", "a"]])

    assert vocabulary.encode(["<pad>", "</s>", "<s>", "<unk>", "a"]) == [UNKNOWN] * 4 + [4]


@given(st.lists(st.lists(tokens)))
def test_known_tokens_and_the_file_come_back(rows: list[list[str]]) -> None:
    vocabulary = Vocabulary.build(rows)

    assert Vocabulary.parse(vocabulary.lines(), "x") == vocabulary
    assert vocabulary.lines().splitlines() == list(vocabulary.entries)
    for row in rows:
        expected = ["<unk>" if token in SPECIAL else token for token in row]
        assert vocabulary.decode(vocabulary.encode(row)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"v\.txt, line 1: expected '<pad>', got nothing"),
        ("<pad>\n<unk>\n<s>\n", r"line 4: expected '</s>', got nothing"),
        ("<pad>\r\n<unk>\r\n", r"line 1: expected '<pad>', got '<pad>\\r'"),
        (HEAD + "a\nb", r"line 6: expected a line feed at its end, got none"),
        (HEAD + "a\n\nb\n", r"line 6: expected text without line breaks, got ''"),
        (HEAD + "a\x85\n", r"line 5: expected text without line breaks, got 'a\\x85'"),
        (HEAD + "a\nb\na\n", r"line 7: expected each entry once, got 'a' of line 5 again"),
    ],
    ids=["empty", "short", "carriage returns", "cut", "blank line", "odd break", "twice"],
)
def test_a_broken_file_is_named_with_line_expected_and_found(content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Vocabulary.parse(content, "v.txt")


def test_invalid_entries_are_refused() -> None:
    with pytest.raises(DataError, match=r"vocabulary, entry 4: expected text without line breaks"):
        Vocabulary.build([["a\nb"]])
    with pytest.raises(DataError, match="expected ids of 0 to 3, got 4"):
        Vocabulary.build([]).decode([2, 4])
    with pytest.raises(DataError, match="got -1"):
        Vocabulary.build([]).decode([-1])
