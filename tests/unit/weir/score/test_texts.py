"""Texts of a column; the tokenizer's own row for each text is the oracle."""

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import bert
from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange
from weir.score.batching import cut_by_length
from weir.score.rows import Part
from weir.score.texts import texts_of
from weir.server.errors import ServerError
from weir.server.preprocessing.fast_tokenizer import FastTokenizer
from weir.server.preprocessing.tokenized_text import TokenizedText
from weir.server.preprocessing.tokenizer import BundleTokenizer, Tokenizer
from weir.server.scheduling.batching import BatchPolicy

KINDS = {
    "texts": pa.string(),
    "large texts": pa.large_string(),
    "lists": pa.list_(pa.string()),
    "large lists": pa.large_list(pa.large_string()),
}
MOST_TOKENS = 5
POLICY = BatchPolicy(max_rows=2)


def words() -> Tokenizer:
    """Looks words up, and their characters."""
    return Tokenizer(
        Tokenisation(rule="words", lower=True, unknown=1, characters="characters"),
        {
            "tokens": ["<pad>", "<unk>", "a", "the", "cats"],
            "characters": ["<pad>", "<unk>", *"aest"],
        },
        time=PaddedAxis(
            maximum=MOST_TOKENS, lengths="lengths", padding={"tokens": 0, "characters": 0}
        ),
        characters=PaddedAxis(maximum=4, padding={"characters": 0}),
    )


def wordpieces() -> FastTokenizer:
    """Splits words into pieces."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    oracle = bert.trained_tokenizer()
    return FastTokenizer(
        Tokenisation(
            rule="tokenizer-json", tokens=names[0], token_type_ids=names[2], model="tokenizer.json"
        ),
        oracle.to_str().encode(),
        time=PaddedAxis(maximum=12, mask=names[1], padding=dict.fromkeys(names, 0)),
        bounds=ValueRange(maximum=oracle.get_vocab_size() - 1),
    )


TOKENS = st.sampled_from(["a", "the", "The", "cats", "east", "\u00e9", "", "x" * 2100])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [words, wordpieces])
@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.none() | st.lists(st.none() | TOKENS, max_size=MOST_TOKENS + 1), max_size=9),
    start=st.integers(0, 3),
    unread=st.sets(st.integers(0, 8), max_size=2),
)
def test_each_text_has_the_row_that_the_tokenizer_makes_of_it(
    make: Callable[[], BundleTokenizer],
    kind: str,
    rows: list[list[str | None] | None],
    start: int,
    unread: set[int],
) -> None:
    is_list = "lists" in kind
    values = [row if is_list or row is None else " ".join(filter(None, row)) for row in rows]
    column = pa.array(values, KINDS[kind])[start:]
    tokenizer = make()
    before = {position: "unread" for position in unread if position < len(column)}
    errors = dict(before)

    texts = texts_of(Part(0, pa.table({"t": column})), "t", tokenizer, errors)

    expected, wrong = {}, {}
    for position, value in enumerate(column.to_pylist()):
        try:
            expected[position] = row_of(value, tokenizer)
        except (ServerError, ValueError) as error:
            wrong[position] = str(error)
    assert errors == {**wrong, **before}
    assert sorted(texts.positions) == sorted(set(expected) - set(before))
    assert list(texts.lengths) == sorted(texts.lengths, reverse=True)
    for batch in cut_by_length(texts.lengths, POLICY):
        good = [expected[position] for position in texts.positions[batch]]
        assert texts.tokens(batch).to_pylist() == [list(text.tokens) for text in good]
        assert list(texts.lengths[batch]) == [len(text.ids) for text in good]
        inputs, own = texts.inputs(batch), tokenizer.rows(good)
        assert {name: array.tolist() for name, array in inputs.items()} == {
            name: array.tolist() for name, array in own.items()
        }


def row_of(value: str | list[str | None] | None, tokenizer: BundleTokenizer) -> TokenizedText:
    if value is None:
        raise ValueError("expected a text, got null")
    if isinstance(value, str):
        return tokenizer.tokenize(value)
    known = [token for token in value if token is not None]
    if len(known) < len(value):
        raise ValueError("expected tokens, got null")
    return tokenizer.look_up(known)


def test_texts_of_one_length_are_sorted_by_their_longest_token() -> None:
    rows = [["a", "cats"], ["a", "a"], ["the"], ["the", "a"], ["cats", "a"]]

    texts = texts_of(Part(0, pa.table({"t": pa.array(rows)})), "t", words(), {})

    assert texts.positions.tolist() == [0, 4, 3, 1, 2]
    sizes = [
        texts.inputs(batch)["characters"].shape for batch in cut_by_length(texts.lengths, POLICY)
    ]
    assert sizes == [(2, 2, 4), (2, 2, 3), (1, 1, 3)]
