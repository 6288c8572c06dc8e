"""Texts → ids, as a bundle's `tokenisation` says. Pure: texts in, ids out.

Rules:
- A text is cut as it was in training. Of one graph, a token is lowered by itself; of a pair, the text is
  as a whole (which matters to a Greek sigma alone), and each run of white space is one space.
- Tokens that come cut are only looked up.
- What the vocabulary's special entries spell is no text's: it is unknown.
- What a text may cost is bounded before it is looked at: Python puts marks into normal form in time that
  grows with the square of how many follow each other, and lets no other thread run meanwhile.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Contract
from weir.bundle.reader import Bundle
from weir.bundle.sequences import PaddedAxis, Tokenisation
from weir.bundle.text import all_marks, tokenise
from weir.server.errors import InvalidRequest, ModelLoadError
from weir.server.tasks import subwords

Array = NDArray[Any]

SPECIAL = frozenset(("<pad>", "<unk>", "<s>", "</s>"))
"""Entries of a vocabulary that are no text."""

_CHARACTERS_PER_TOKEN = 32
_LEAST_CHARACTERS = 4096
_MOST_MARKS = 64


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as a model sees it.

    Attributes:
        tokens: as they were cut.
        ids: one a token.
        letters: the ids of each token's letters; none where the model reads no spelling.
        is_unknown: whether the model has never seen a token; one a token.
    """

    tokens: Sequence[str]
    ids: Sequence[int]
    letters: Sequence[Sequence[int]]
    is_unknown: Sequence[bool]

    @property
    def unknown(self) -> list[str]:
        """The tokens that the model has never seen, in the order of the text."""
        pairs = zip(self.tokens, self.is_unknown, strict=True)
        return [token for token, is_unknown in pairs if is_unknown]


class TextReader:
    """Reads the texts of one bundle; used by any number of threads.

    Args:
        tokenisation: of the contract.
        vocabularies: the entries of the inputs that it names.
        time: the axis of tokens.
        letters: of their letters, where the model reads spelling.
        model: of subwords.
        lowers_texts: whether a text is lowered as a whole.

    Raises:
        ModelLoadError: the model is broken, or what opens it is not installed.
    """

    def __init__(
        self,
        tokenisation: Tokenisation,
        vocabularies: Mapping[str, Sequence[str]],
        *,
        time: PaddedAxis,
        letters: PaddedAxis | None = None,
        model: bytes | None = None,
        lowers_texts: bool = False,
    ) -> None:
        self.tokenisation = tokenisation
        self._time = time
        self._letters = letters
        self._most_characters = max(_LEAST_CHARACTERS, _CHARACTERS_PER_TOKEN * time.maximum)
        self._lowers_texts = lowers_texts
        self._ids = _numbered(vocabularies[tokenisation.tokens])
        name = tokenisation.characters
        self._letter_ids = {} if name is None else _numbered(vocabularies[name])
        self._cutter = None if model is None else subwords.open_model(model)

    def read(self, text: str) -> Reading:
        """Cut a text and look its tokens up.

        Raises:
            InvalidRequest: no tokens, or too many, or more characters than are looked at.
        """
        if len(text) > self._most_characters:
            raise InvalidRequest(
                f"expected a text of at most {self._most_characters} characters, got {len(text)}"
            )
        if _many_marks().search(text):
            raise InvalidRequest(f"expected at most {_MOST_MARKS} marks after each other, got more")
        if self._lowers_texts and self.tokenisation.lower:
            text = text.lower()
        return self.look_up(self._cut(text))

    def look_up(self, tokens: Sequence[str]) -> Reading:
        """Tokens that are cut already.

        Raises:
            InvalidRequest: none, too many, one without a character, or far too long ones.
        """
        if not tokens:
            raise InvalidRequest("expected a text with tokens, got none")
        if len(tokens) > self._time.maximum:
            raise InvalidRequest(f"expected at most {self._time.maximum} tokens, got {len(tokens)}")
        if not all(tokens):
            raise InvalidRequest(f"tokens[{list(tokens).index('')}]: expected characters, got none")
        if (characters := sum(map(len, tokens))) > self._most_characters:
            raise InvalidRequest(
                f"expected tokens of at most {self._most_characters} characters, got {characters}"
            )
        unknown = self.tokenisation.unknown
        shown = [token.lower() for token in tokens] if self.tokenisation.lower else tokens
        found = [self._ids.get(token) for token in shown]
        return Reading(
            tokens=tokens,
            ids=[unknown if each is None else each for each in found],
            letters=[self._spell(token) for token in tokens] if self._letters else [],
            is_unknown=[each in (None, unknown) for each in found],
        )

    def _cut(self, text: str) -> list[str]:
        rule = self.tokenisation.rule
        if rule == "words":
            return tokenise(text)
        normal = unicodedata.normalize("NFC", text)
        if self._cutter is not None:
            return self._cutter.cut(" ".join(normal.replace(subwords.SPACE, " ").split()))
        words = normal.split()
        return words if rule == "spaces" else list(" ".join(words))

    def _spell(self, token: str) -> list[int]:
        most = self._letters.maximum if self._letters else 0
        unknown = self.tokenisation.unknown
        return [self._letter_ids.get(letter, unknown) for letter in token[:most]]

    def rows(self, readings: Sequence[Reading]) -> dict[str, Array]:
        """The model's inputs: each text a row, shorter ones filled up.

        Returns:
            Tokens (rows, T), their lengths (rows,) where the model wants them, letters (rows, T, L)
            where it reads them.
        """
        name, spelling = self.tokenisation.tokens, self.tokenisation.characters
        lengths = np.array([len(reading.ids) for reading in readings])
        shape = (len(readings), int(lengths.max()))
        inputs = {name: np.full(shape, self._time.padding[name])}
        if self._time.lengths is not None:
            inputs[self._time.lengths] = lengths
        for row, reading in enumerate(readings):
            inputs[name][row, : len(reading.ids)] = reading.ids
        if spelling is not None and self._letters is not None:
            inputs[spelling] = _spelt(readings, shape, self._letters.padding[spelling])
        return inputs


def _spelt(readings: Sequence[Reading], shape: tuple[int, int], padding: int) -> Array:
    longest = max(len(letters) for reading in readings for letters in reading.letters)
    rows = np.full((*shape, longest), padding)
    for row, reading in enumerate(readings):
        for place, letters in enumerate(reading.letters):
            rows[row, place, : len(letters)] = letters
    return rows


def reader_of(bundle: Bundle) -> TextReader | None:
    """What reads a bundle's texts, None if it says nothing of how.

    Raises:
        ModelLoadError: its vocabularies, ranges and axes do not fit together.
    """
    contract, tokenisation = bundle.contract, bundle.contract.tokenisation
    if tokenisation is None:
        return None
    names = [name for name in (tokenisation.tokens, tokenisation.characters) if name is not None]
    vocabularies = {name: bundle.vocabulary(name) or [] for name in names}
    for name, entries in vocabularies.items():
        _check_entries(contract, name, len(entries))
    time = _axis(contract, tokenisation.tokens)
    spelling = tokenisation.characters
    return TextReader(
        tokenisation,
        vocabularies,
        time=contract.padded_axes[time],
        letters=contract.padded_axes[_axis(contract, spelling, beside=time)] if spelling else None,
        model=bundle.subwords,
        lowers_texts=contract.decoding is not None,
    )


def _check_entries(contract: Contract, name: str, entries: int) -> None:
    bounds, tokenisation = contract.value_ranges.get(name), contract.tokenisation
    if bounds is None or not (bounds.minimum == 0 and entries <= bounds.maximum + 1):
        got = "no range" if bounds is None else f"values from {bounds.minimum} to {bounds.maximum}"
        raise ModelLoadError(
            f"tokenisation: expected input {name!r} to take an id for each of {entries} entries "
            f"of its vocabulary, got {got}"
        )
    if tokenisation is not None and tokenisation.unknown >= entries:
        raise ModelLoadError(
            f"tokenisation: unknown: expected an id of {name!r}, below {entries}, "
            f"got {tokenisation.unknown}"
        )


def _axis(contract: Contract, name: str, *, beside: str | None = None) -> str:
    """The one padded axis of an input beside another."""
    axes = [
        axis
        for axis, padded in contract.padded_axes.items()
        if name in padded.padding and axis != beside
    ]
    if len(axes) != 1:
        raise ModelLoadError(f"tokenisation: expected one padded axis of {name!r}, got {axes}")
    return axes[0]


def _numbered(entries: Sequence[str]) -> dict[str, int]:
    """The ids that a text may get."""
    return {entry: index for index, entry in enumerate(entries) if entry not in SPECIAL}


@cache
def _many_marks() -> re.Pattern[str]:
    return re.compile(f"[{all_marks()}]{{{_MOST_MARKS + 1}}}")
