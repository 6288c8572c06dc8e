"""Texts of a part, tokenized by a bundle's tokenizer."""

from itertools import pairwise

import numpy as np
import pyarrow as pa

from weir.score.columns import is_list
from weir.score.rows import Part, one_array
from weir.server.errors import ServerError
from weir.server.preprocessing.tokenized_text import TokenizedText
from weir.server.preprocessing.tokenizer import BundleTokenizer

SORTED_ROWS = 8192
"""Rows of a part of texts: the more rows are sorted, the less padding."""


def tokenized(
    part: Part, column: str, tokenizer: BundleTokenizer, errors: dict[int, str]
) -> list[tuple[int, TokenizedText]]:
    """The texts of a column by their position; one that cannot be tokenized is an error."""
    texts = []
    for position, value in enumerate(_values(one_array(part, column))):
        if position in errors:
            continue
        try:
            if value is None:
                errors[position] = "expected a text, got null"
            elif isinstance(value, list) and None in value:
                errors[position] = "expected tokens, got null"
            elif isinstance(value, str):
                texts.append((position, tokenizer.tokenize(value)))
            else:
                texts.append((position, tokenizer.look_up(value)))
        except ServerError as error:
            errors[position] = str(error)
    return texts


def _values(column: pa.Array) -> list[str | list[str] | None]:
    """The texts of a column, or the tokens of each row; None for a null.

    In place of `to_pylist`, which makes a Python object of each cell first: for a list of 12 tokens
    6 us in place of 2.
    """
    if not is_list(column.type):
        texts: list[str | list[str] | None] = column.to_numpy(zero_copy_only=False).tolist()
        return texts
    tokens = column.flatten().to_numpy(zero_copy_only=False).tolist()
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = [0, *np.cumsum(lengths).tolist()]
    rows: list[str | list[str] | None] = [tokens[start:end] for start, end in pairwise(ends)]
    for position in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
        rows[position] = None
    return rows
