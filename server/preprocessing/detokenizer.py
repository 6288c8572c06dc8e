"""Detokenizer: ids → the text of an answer, as a bundle's `detokenisation` says. Pure.

A stream returns what each token adds to the text; these parts, joined, are the whole text.
"""

from collections.abc import Iterable, Sequence

from weir.bundle.decoding import Detokenisation
from weir.bundle.reader import Bundle
from weir.bundle.text import SUBWORD_SPACE
from weir.server.errors import ModelLoadError


class Detokenizer:
    """The detokenizer of one bundle; safe to use from several threads.

    Args:
        entries: the vocabulary, by id; empty: a token is its number.
        rule: None: tokens are no text.
    """

    def __init__(self, entries: Sequence[str], rule: Detokenisation | None) -> None:
        self._entries = entries
        self.rule = rule

    def token(self, token_id: int) -> str:
        """A token as the vocabulary spells it."""
        return self._entries[token_id] if self._entries else str(token_id)

    def text(self, ids: Iterable[int]) -> str:
        """The text of ids without begin, end and padding."""
        stream = DetokenizerStream(self)
        return "".join([stream.add(each) for each in ids])


class DetokenizerStream:
    """The text of one answer, token by token."""

    def __init__(self, detokenizer: Detokenizer) -> None:
        self._detokenizer = detokenizer
        self._is_empty = True
        self._spaces = ""

    def add(self, token_id: int) -> str:
        """What one more token adds to the text."""
        rule, token = self._detokenizer.rule, self._detokenizer.token(token_id)
        if rule is None:
            return ""
        if rule == "subwords":
            return self._add_subword(token.replace(SUBWORD_SPACE, " "))
        gap = "" if self._is_empty or rule == "letters" else " "
        self._is_empty = False
        return gap + token

    def _add_subword(self, piece: str) -> str:
        """A text has no spaces at its ends: trailing ones are held back until more text follows."""
        whole = self._spaces + piece
        added = whole.rstrip(" ")
        self._spaces = whole[len(added) :]
        if self._is_empty:
            added = added.lstrip(" ")
            self._is_empty = not added
        return added


def detokenizer_of(bundle: Bundle) -> Detokenizer | None:
    """The detokenizer of a bundle; None if its contract has no `decoding`.

    Raises:
        ModelLoadError: the vocabulary lacks an id that the decoder may choose.
    """
    decoding = bundle.contract.decoding
    if decoding is None:
        return None
    entries = bundle.vocabulary(decoding.previous) or []
    ids = bundle.contract.value_ranges[decoding.previous].maximum + 1
    if entries and len(entries) < ids:
        raise ModelLoadError(
            f"vocabularies: {decoding.previous}: expected {ids} entries, got {len(entries)}"
        )
    return Detokenizer(entries, decoding.detokenisation)
