"""Texts of a part, tokenized by a bundle's tokenizer, the longest first.

Where tokens are only looked up, each distinct token of a part is looked up once, and all else is
done by whole columns: a Python loop over tokens holds the GIL, and the threads that score wait for
it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from weir.score.batching import longest_first
from weir.score.columns import is_list
from weir.score.rows import Part, one_array
from weir.server.errors import ServerError
from weir.server.preprocessing.tokenized_text import TextLimits, TokenizedText
from weir.server.preprocessing.tokenizer import BundleTokenizer, FlatTokens, Tokenizer

SORTED_ROWS = 8192
"""Rows of a part of texts: the more rows are sorted, the less padding."""

Array = NDArray[Any]

_TOKENS = pa.list_(pa.string())


class Texts(Protocol):
    """The texts of a part that can be scored, the longest first."""

    @property
    def positions(self) -> NDArray[np.intp]:
        """The position of each text in the part."""

    @property
    def lengths(self) -> NDArray[np.intp]:
        """The number of tokens of each text."""

    def inputs(self, rows: slice) -> dict[str, Array]:
        """The model's inputs for some of the texts."""

    def tokens(self, rows: slice) -> pa.Array:
        """A list of the tokens of each of some texts."""


def texts_of(part: Part, column: str, tokenizer: BundleTokenizer, errors: dict[int, str]) -> Texts:
    """The texts of a column; one that cannot be tokenized is an error."""
    values = one_array(part, column)
    if isinstance(tokenizer, Tokenizer):
        return _looked_up(values, tokenizer, errors)
    return _tokenized(values, tokenizer, errors)


def null_in(value: object, kind: str = "text") -> str | None:
    """Why a cell is no text, tokens or picture, if it is null or has a null; else None."""
    if value is None:
        return f"expected a {kind}, got null"
    return "expected tokens, got null" if isinstance(value, list) and None in value else None


@dataclass(frozen=True, slots=True)
class _TokenizedTexts:
    """Texts that were tokenized one by one."""

    positions: NDArray[np.intp]
    lengths: NDArray[np.intp]
    tokenizer: BundleTokenizer
    texts: Sequence[TokenizedText]

    def inputs(self, rows: slice) -> dict[str, Array]:
        return self.tokenizer.rows(self.texts[rows])

    def tokens(self, rows: slice) -> pa.Array:
        return pa.array([list(text.tokens) for text in self.texts[rows]], _TOKENS)


def _tokenized(values: pa.Array, tokenizer: BundleTokenizer, errors: dict[int, str]) -> Texts:
    texts = []
    for position, value in enumerate(values.to_pylist()):
        if position in errors:
            continue
        try:
            if reason := null_in(value):
                errors[position] = reason
            elif isinstance(value, str):
                texts.append((position, tokenizer.tokenize(value)))
            else:
                texts.append((position, tokenizer.look_up(value)))
        except ServerError as error:
            errors[position] = str(error)
    lengths = np.array([len(text.ids) for _, text in texts], np.intp)
    order = longest_first(lengths)
    return _TokenizedTexts(
        np.array([position for position, _ in texts], np.intp)[order],
        lengths[order],
        tokenizer,
        [texts[number][1] for number in order.tolist()],
    )


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """The distinct tokens of a part.

    Attributes:
        ids: the id of each token, (distinct,).
        lengths: the number of characters of each token, (distinct,).
        starts: the number of characters of all tokens before each, (distinct,).
        characters: the ids of all tokens' characters, one token after the other.
    """

    ids: Array
    lengths: Array
    starts: Array
    characters: Array

    def flat(self, entries: Array, lengths: Array) -> FlatTokens:
        """The tokens of texts of these lengths; `entries` says which distinct token each is."""
        own = self.lengths[entries]
        characters = self.characters[_spans(self.starts[entries], own)]
        return FlatTokens(lengths, self.ids[entries], own, characters)


def _vocabulary(tokens: Sequence[str], tokenizer: Tokenizer) -> _Vocabulary:
    found = tokenizer.find(tokens)
    lengths = np.array([len(characters) for _, characters in found], np.int64)
    return _Vocabulary(
        np.array([number for number, _ in found], np.int64),
        lengths,
        np.cumsum(lengths) - lengths,
        np.array([each for _, characters in found for each in characters], np.int64),
    )


@dataclass(frozen=True, slots=True)
class _LookedUpTexts:
    """Texts whose distinct tokens were looked up.

    Attributes:
        lists: a list of the tokens of each text.
        ends: the number of tokens before each text, and that of all, (texts + 1,).
        entries: which distinct token each token is, (tokens,).
    """

    positions: NDArray[np.intp]
    lengths: NDArray[np.intp]
    tokenizer: Tokenizer
    lists: pa.Array
    ends: NDArray[np.intp]
    entries: NDArray[np.intp]
    vocabulary: _Vocabulary

    def inputs(self, rows: slice) -> dict[str, Array]:
        entries = self.entries[self.ends[rows.start] : self.ends[rows.stop]]
        return self.tokenizer.pad(self.vocabulary.flat(entries, self.lengths[rows]))

    def tokens(self, rows: slice) -> pa.Array:
        return self.lists.slice(rows.start, rows.stop - rows.start)


def _looked_up(values: pa.Array, tokenizer: Tokenizer, errors: dict[int, str]) -> Texts:
    lists = values.cast(_TOKENS) if is_list(values.type) else _split(values, tokenizer, errors)
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.intp)
    doubtful = _are_doubtful(lengths, lists.flatten(), tokenizer.limits)
    for position in np.flatnonzero(doubtful).tolist():
        if position not in errors:
            tokens = lists[position].as_py()
            if reason := null_in(tokens) or _refusal(tokens, tokenizer):
                errors[position] = reason
    positions = np.delete(np.arange(len(lists)), [*errors])
    if errors:
        lists = lists.take(pa.array(positions))
    lengths, encoded = lengths[positions], lists.flatten().dictionary_encode()
    entries = encoded.indices.to_numpy(zero_copy_only=False)
    vocabulary = _vocabulary(encoded.dictionary.to_pylist(), tokenizer)
    starts = np.cumsum(lengths) - lengths
    order = longest_first(lengths, _greatest(vocabulary.lengths[entries], starts))
    own = lengths[order]
    return _LookedUpTexts(
        positions[order],
        own,
        tokenizer,
        lists.take(pa.array(order)),
        np.concatenate([[0], np.cumsum(own)]),
        entries[_spans(starts[order], own)],
        vocabulary,
    )


def _split(values: pa.Array, tokenizer: Tokenizer, errors: dict[int, str]) -> pa.Array:
    """The tokens of each text; null where there is an error."""
    rows: list[list[str] | None] = []
    for position, text in enumerate(values.to_pylist()):
        tokens = None
        if position not in errors:
            try:
                tokens = None if text is None else tokenizer.split(text)
            except ServerError as error:
                errors[position] = str(error)
        rows.append(tokens)
    return pa.array(rows, _TOKENS)


def _are_doubtful(
    lengths: NDArray[np.intp], tokens: pa.Array, limits: TextLimits
) -> NDArray[np.bool_]:
    """Which texts may have to be refused, (texts,); must cover every check of `TextLimits`."""
    sizes = pc.utf8_length(tokens).fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    characters = np.diff(np.concatenate([[0], np.cumsum(sizes)])[ends], prepend=0)
    doubtful: NDArray[np.bool_] = (
        (lengths == 0) | (lengths > limits.tokens) | (characters > limits.characters)
    )
    doubtful[np.searchsorted(ends, np.flatnonzero(sizes == 0), side="right")] = True
    return doubtful


def _refusal(tokens: list[str], tokenizer: Tokenizer) -> str | None:
    """Why a text cannot be scored; None if it can."""
    try:
        tokenizer.look_up(tokens)
    except ServerError as error:
        return str(error)
    return None


def _greatest(values: Array, starts: Array) -> Array:
    """The greatest of the values from each start to the next one."""
    greatest: Array = np.maximum.reduceat(values, starts) if len(starts) else starts
    return greatest


def _spans(starts: Array, lengths: Array) -> Array:
    """The indices of runs of values, one run after the other."""
    ends = np.cumsum(lengths)
    spans: Array = np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)
    return spans
