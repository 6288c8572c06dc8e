"""Texts of a column; Arrow's own conversion to Python is the oracle."""

from collections.abc import Sequence
from typing import cast

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.score.rows import Part
from weir.score.texts import tokenized
from weir.server.errors import InvalidRequest
from weir.server.preprocessing.tokenized_text import TokenizedText
from weir.server.preprocessing.tokenizer import Tokenizer

KINDS = {
    "texts": pa.string(),
    "large texts": pa.large_string(),
    "lists": pa.list_(pa.string()),
    "large lists": pa.large_list(pa.string()),
}


class Echo:
    """A tokenizer that keeps what it gets, and refuses what is empty."""

    def tokenize(self, text: str) -> TokenizedText:
        return self.look_up([text])

    def look_up(self, tokens: Sequence[str]) -> TokenizedText:
        if not all(tokens) or not tokens:
            raise InvalidRequest("empty")
        return TokenizedText(tokens, [0] * len(tokens), [], [False] * len(tokens))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(
    rows=st.lists(st.none() | st.lists(st.none() | st.text(max_size=3), max_size=4), max_size=9),
    start=st.integers(0, 4),
)
def test_every_row_has_its_own_text(
    kind: str, rows: list[list[str | None] | None], start: int
) -> None:
    is_list = "lists" in kind
    values = [row if is_list or row is None else (row[0] if row else None) for row in rows]
    column = pa.array(values, KINDS[kind])[start:]
    errors: dict[int, str] = {}

    found = tokenized(Part(0, pa.table({"t": column})), "t", cast("Tokenizer", Echo()), errors)

    texts = dict(found)
    for position, value in enumerate(column.to_pylist()):
        tokens = value if is_list else [value]
        if value and all(tokens):
            assert list(texts[position].tokens) == tokens
        else:
            assert position not in texts and position in errors
