"""Ids → the text of an answer, as a bundle's `detokenisation` says. Pure.

What each token adds is told as it comes; the additions, one after the other, are the text.
"""

from collections.abc import Iterable, Sequence

from weir.bundle.decoding import Detokenisation
from weir.bundle.reader import Bundle
from weir.server.errors import ModelLoadError
from weir.server.tasks.subwords import SPACE


class TextWriter:
    """Writes the answers of one bundle; used by any number of threads.

    Args:
        entries: of the vocabulary, by id; none: a token is told by its number.
        rule: None: tokens are no text.
    """

    def __init__(self, entries: Sequence[str], rule: Detokenisation | None) -> None:
        self._entries = entries
        self.rule = rule

    def token(self, token_id: int) -> str:
        """A token as it stands in the vocabulary."""
        return self._entries[token_id] if self._entries else str(token_id)

    def write(self, ids: Iterable[int]) -> str:
        """The text of ids, which hold neither begin nor end nor padding."""
        draft = self.begin()
        return "".join([draft.add(each) for each in ids])

    def begin(self) -> "Draft":
        """An answer without tokens so far."""
        return Draft(self)


class Draft:
    """The text of one answer as it comes."""

    def __init__(self, writer: TextWriter) -> None:
        self._writer = writer
        self._is_empty = True
        self._spaces = ""

    def add(self, token_id: int) -> str:
        """What one more token adds to the text so far."""
        rule, token = self._writer.rule, self._writer.token(token_id)
        if rule is None:
            return ""
        if rule == "subwords":
            return self._add_piece(token.replace(SPACE, " "))
        gap = "" if self._is_empty or rule == "letters" else " "
        self._is_empty = False
        return gap + token

    def _add_piece(self, piece: str) -> str:
        """The text has no spaces at its ends: those at the end are kept until more comes."""
        whole = self._spaces + piece
        kept = whole.rstrip(" ")
        self._spaces = whole[len(kept) :]
        if self._is_empty:
            kept = kept.lstrip(" ")
            self._is_empty = not kept
        return kept


def writer_of(bundle: Bundle) -> TextWriter | None:
    """What writes a bundle's answers, None if it makes no sequences.

    Raises:
        ModelLoadError: its vocabulary has no entry for an id that the decoder may choose.
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
    return TextWriter(entries, decoding.detokenisation)
