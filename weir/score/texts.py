"""Texts of a part, tokenized by a bundle's tokenizer."""

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
    for position, value in enumerate(one_array(part, column).to_pylist()):
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
