"""Tokenizer: texts → ids, as a bundle's `tokenisation` says. Pure.

`Tokenizer` looks tokens up in a vocabulary of the bundle. `fast_tokenizer` has the rule
`tokenizer-json`.

Rules:
- A text is split as in training. For a single graph each token is lowered by itself. For an
  encoder-decoder the text is lowered as a whole (only a Greek sigma differs), and each run of white
  space is one space.
- Tokens that the client has split are only looked up.
- A text cannot spell the vocabulary's special entries: such a token is unknown.
- The cost of a text is bounded before it is read (`tokenized_text`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Contract
from weir.bundle.reader import Bundle
from weir.bundle.sequences import PaddedAxis, Tokenisation
from weir.bundle.text import normalise, split_text
from weir.server.errors import ModelLoadError
from weir.server.preprocessing.fast_tokenizer import FastTokenizer
from weir.server.preprocessing.tokenized_text import TextLimits, TokenizedText

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

Array = NDArray[Any]

# Bounds the memory of what a client spells.
_REMEMBERED_TOKENS = 16_384
_REMEMBERED_CHARACTERS = 64

SPECIAL = frozenset(("<pad>", "<unk>", "<s>", "</s>"))
"""Entries of a vocabulary that are no text."""


@dataclass(frozen=True, slots=True)
class FlatTokens:
    """The tokens of several texts, one text after the other.

    Attributes:
        lengths: the tokens of each text, (texts,).
        ids: (tokens,).
        character_lengths: the number of characters of each token, (tokens,); not read if the model
            reads no characters.
        characters: the ids of all tokens' characters, one token after the other.
    """

    lengths: Array
    ids: Array
    character_lengths: Array
    characters: Array


class Tokenizer:
    """The tokenizer of one bundle; safe to use from several threads.

    Args:
        vocabularies: the entries of the inputs that it names.
        time: the axis of tokens.
        characters: the axis of a token's characters, where the model reads them.

    Raises:
        ModelLoadError: the sentencepiece model is broken, or sentencepiece is not installed.
    """

    def __init__(
        self,
        tokenisation: Tokenisation,
        vocabularies: Mapping[str, Sequence[str]],
        *,
        time: PaddedAxis,
        characters: PaddedAxis | None = None,
        subwords: bytes | None = None,
        lowers_texts: bool = False,
    ) -> None:
        self.tokenisation = tokenisation
        self._time = time
        self._characters = characters
        self.limits = TextLimits(time.maximum)
        self._lowers_texts = lowers_texts
        # Of a contract, only the rule tokenizer-json has none.
        self._unknown = tokenisation.unknown or 0
        self._ids = _ids_of(vocabularies[tokenisation.tokens])
        # Most of a text are few words; a sentence of 12 takes 18 us without it.
        self._remembered = lru_cache(_REMEMBERED_TOKENS)(self._find)
        name = tokenisation.characters
        self._character_ids = {} if name is None else _ids_of(vocabularies[name])
        self._subwords = None if subwords is None else _open_subwords(subwords)

    def example(self) -> TokenizedText:
        """A short tokenized text, for a check at load."""
        return self.tokenize("a")

    def tokenize(self, text: str) -> TokenizedText:
        """Split a text and look its tokens up."""
        return self.look_up(self.split(text))

    def split(self, text: str) -> list[str]:
        """The tokens of a text."""
        self.limits.check_text(text)
        if self._lowers_texts and self.tokenisation.lower:
            text = text.lower()
        rule = self.tokenisation.rule
        if rule in ("words", "spaces", "letters"):
            return split_text(text, rule)
        pieces: list[str] = []
        if self._subwords is not None:
            # A run of characters that the model never saw is one piece.
            text = normalise(text, is_subwords=True)
            pieces = self._subwords.encode(text, out_type=str)
        return pieces

    def look_up(self, tokens: Sequence[str]) -> TokenizedText:
        """Look up tokens that are split already."""
        self.limits.check_count(len(tokens))
        self.limits.check_tokens(tokens)
        unknown = self._unknown
        found = self.find(tokens)
        ids = [number for number, _ in found]
        return TokenizedText(
            tokens=tokens,
            ids=ids,
            characters=[characters for _, characters in found] if self._characters else [],
            is_unknown=[number == unknown for number in ids],
        )

    def rows(self, texts: Sequence[TokenizedText]) -> dict[str, Array]:
        """The model's inputs: each text is a row, padded to the longest.

        Returns:
            Tokens (rows, T), their lengths (rows,) where the model takes them, characters
            (rows, T, L) where it reads them.
        """
        spelled = [characters for text in texts for characters in text.characters]
        return self.pad(
            FlatTokens(
                np.array([len(text.ids) for text in texts]),
                np.array([*chain.from_iterable(text.ids for text in texts)]),
                np.array([*map(len, spelled)]),
                np.array([*chain.from_iterable(spelled)], np.int64),
            )
        )

    def pad(self, flat: FlatTokens) -> dict[str, Array]:
        """The model's inputs, as of `rows`."""
        name, spelling = self.tokenisation.tokens, self.tokenisation.characters
        shape = (len(flat.lengths), int(flat.lengths.max()))
        inputs = {name: np.full(shape, self._time.padding[name])}
        if self._time.lengths is not None:
            inputs[self._time.lengths] = flat.lengths
        # In the order of the rows, as a mask takes them.
        is_token = np.arange(shape[1]) < flat.lengths[:, np.newaxis]  # (rows, T)
        inputs[name][is_token] = flat.ids
        if spelling is not None and self._characters is not None:
            lengths = np.zeros(shape, np.int64)
            lengths[is_token] = flat.character_lengths
            spelled: Array = np.full(
                (*shape, int(lengths.max())), self._characters.padding[spelling]
            )
            spelled[np.arange(spelled.shape[2]) < lengths[..., np.newaxis]] = flat.characters
            inputs[spelling] = spelled
        return inputs

    def find(self, tokens: Sequence[str]) -> list[tuple[int, list[int]]]:
        """The id of each token, and those of its characters where the model reads them."""
        remembered, find = self._remembered, self._find
        return [
            remembered(token) if len(token) <= _REMEMBERED_CHARACTERS else find(token)
            for token in tokens
        ]

    def _find(self, token: str) -> tuple[int, list[int]]:
        limit = self._characters.maximum if self._characters else 0
        unknown, of = self._unknown, self._character_ids
        lowered = token.lower() if self.tokenisation.lower else token
        return self._ids.get(lowered, unknown), [of.get(each, unknown) for each in token[:limit]]


BundleTokenizer = Tokenizer | FastTokenizer
"""The tokenizer of a bundle, by its rule."""


def tokenizer_of(bundle: Bundle) -> BundleTokenizer | None:
    """The tokenizer of a bundle; None if its contract has no `tokenisation`.

    Raises:
        ModelLoadError: vocabularies, value ranges and axes do not fit together.
    """
    contract, tokenisation = bundle.contract, bundle.contract.tokenisation
    if tokenisation is None:
        return None
    time = _axis(contract, tokenisation.tokens)
    if bundle.tokenizer_json is not None:
        return FastTokenizer(
            tokenisation,
            bundle.tokenizer_json,
            time=contract.padded_axes[time],
            bounds=contract.value_ranges.get(tokenisation.tokens),
        )
    names = [name for name in (tokenisation.tokens, tokenisation.characters) if name is not None]
    vocabularies = {name: bundle.vocabulary(name) or [] for name in names}
    for name, entries in vocabularies.items():
        _check_entries(contract, name, len(entries))
    spelling = tokenisation.characters
    return Tokenizer(
        tokenisation,
        vocabularies,
        time=contract.padded_axes[time],
        characters=(
            contract.padded_axes[_axis(contract, spelling, other_than=time)] if spelling else None
        ),
        subwords=bundle.subwords,
        lowers_texts=contract.decoding is not None,
    )


def _open_subwords(model: bytes) -> "SentencePieceProcessor":
    # The only importer of sentencepiece: a server whose bundles need none runs without it.
    try:
        from sentencepiece import SentencePieceProcessor
    except ModuleNotFoundError as error:
        raise ModelLoadError(
            f"tokenisation: subwords need {error.name}: pip install 'weir[server]'"
        ) from error
    try:
        return SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ModelLoadError(
            f"tokenisation: expected a sentencepiece model, got {error}"
        ) from error


def _check_entries(contract: Contract, name: str, entries: int) -> None:
    bounds, tokenisation = contract.value_ranges.get(name), contract.tokenisation
    if bounds is None or not (bounds.minimum == 0 and entries <= bounds.maximum + 1):
        got = "no range" if bounds is None else f"values from {bounds.minimum} to {bounds.maximum}"
        raise ModelLoadError(
            f"tokenisation: expected input {name!r} to take an id for each of {entries} entries "
            f"of its vocabulary, got {got}"
        )
    if tokenisation is not None and (tokenisation.unknown or 0) >= entries:
        raise ModelLoadError(
            f"tokenisation: unknown: expected an id of {name!r}, below {entries}, "
            f"got {tokenisation.unknown}"
        )


def _axis(contract: Contract, name: str, *, other_than: str | None = None) -> str:
    """The one padded axis of an input, other than a given one."""
    axes = [
        axis
        for axis, padded in contract.padded_axes.items()
        if name in padded.padding and axis != other_than
    ]
    if len(axes) != 1:
        raise ModelLoadError(f"tokenisation: expected one padded axis of {name!r}, got {axes}")
    return axes[0]


def _ids_of(entries: Sequence[str]) -> dict[str, int]:
    """The id of each entry that a text may spell."""
    return {entry: index for index, entry in enumerate(entries) if entry not in SPECIAL}
