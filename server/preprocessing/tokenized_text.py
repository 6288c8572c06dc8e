"""Tokenized text: what a tokenizer makes of a text, and the limits of the text. Pure.

The cost of a text is bounded before it is read: Python normalises consecutive marks in time
quadratic in their number, and holds the GIL meanwhile. A text of no tokens, of too many, or of too
many characters raises InvalidRequest.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from weir.bundle.text import all_marks
from weir.server.errors import InvalidRequest

_CHARACTERS_PER_TOKEN = 32
_MIN_CHARACTERS = 4096
_MAX_MARKS = 64


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text as a model reads it.

    Attributes:
        characters: the ids of each token's characters; empty where the model reads none.
        is_unknown: whether the vocabulary lacks a token; one a token.
        type_ids: the type (segment) of each token; empty where the model reads none.
    """

    tokens: Sequence[str]
    ids: Sequence[int]
    characters: Sequence[Sequence[int]]
    is_unknown: Sequence[bool]
    type_ids: Sequence[int] = ()

    @property
    def unknown(self) -> list[str]:
        """The tokens that the vocabulary lacks, in the order of the text."""
        pairs = zip(self.tokens, self.is_unknown, strict=True)
        return [token for token, is_unknown in pairs if is_unknown]


@dataclass(frozen=True, slots=True)
class TextLimits:
    """The limits of one text; `tokens` is the most that a row may have."""

    tokens: int

    @property
    def characters(self) -> int:
        """The most characters of a text."""
        return max(_MIN_CHARACTERS, _CHARACTERS_PER_TOKEN * self.tokens)

    def check_text(self, text: str) -> None:
        """Refuse a text that would take long to tokenize."""
        if len(text) > self.characters:
            raise InvalidRequest(
                f"expected a text of at most {self.characters} characters, got {len(text)}"
            )
        if _too_many_marks().search(text):
            raise InvalidRequest(f"expected at most {_MAX_MARKS} consecutive marks, got more")

    def check_tokens(self, tokens: Sequence[str]) -> None:
        """Refuse tokens of a client without characters, or with too many."""
        if not all(tokens):
            raise InvalidRequest(f"tokens[{list(tokens).index('')}]: expected characters, got none")
        if (characters := sum(map(len, tokens))) > self.characters:
            raise InvalidRequest(
                f"expected tokens of at most {self.characters} characters, got {characters}"
            )

    def check_count(self, tokens: int) -> None:
        """Refuse a row without tokens, or with too many."""
        if not tokens:
            raise InvalidRequest("expected a text with tokens, got none")
        if tokens > self.tokens:
            raise InvalidRequest(f"expected at most {self.tokens} tokens, got {tokens}")


@cache
def _too_many_marks() -> re.Pattern[str]:
    return re.compile(f"[{all_marks()}]{{{_MAX_MARKS + 1}}}")
