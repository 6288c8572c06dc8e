"""How a text becomes the tokens that a network reads or writes, and tokens a text again, by one of four rules.

First, whatever the rule, a text is made even: lower case if asked to, Unicode normal form C, and each run of
white space one space, none at its ends. Then it is cut:

    letters     every character is a token, spaces too
    spaces      at spaces: texts that come cut, as phonemes do
    words       by `weir.training.data.tokenise`; joined with spaces where prose has them
    subwords    by a sentencepiece model, see `weir.training.data.subwords`

Of `letters`, `spaces` and `subwords`, joining gives the even text back. Of `words` it is a guess at the
spacing, and cut again it gives the same tokens.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from weir.training.data.subwords import (
    SPACE,
    Kind,
    Processor,
    cut,
    entries_of,
    joined,
    open_subwords,
    train_subwords,
)
from weir.training.data.tokenise import tokenise
from weir.training.data.vocabulary import BEGIN, END, PAD, Vocabulary
from weir.training.errors import DataError

Rule = Literal["letters", "spaces", "words", "subwords"]

CLOSING = frozenset(".,;:!?%)]}\u2026\u00bb\u201c\u201d")
OPENING = frozenset("([{\u00ab\u201e\u00bf\u00a1$")
JOINING = frozenset("'\u2019-/")
"""No space stands before the first, after the second, and on either side of the third between two words."""


@dataclass(frozen=True)
class Segmenter:
    """One rule with its options.

    model: of `subwords`, and of nothing else.
    """

    rule: Rule
    lower: bool = False
    model: bytes | None = None

    def __post_init__(self) -> None:
        if (self.model is not None) != (self.rule == "subwords"):
            found = "none" if self.model is None else f"one for {self.rule}"
            raise DataError(f"segmenter: expected a model for subwords only, found {found}")

    def even(self, text: str) -> str:
        """A text as it is before it is cut."""
        return _even(text, self.rule, lower=self.lower)

    def split(self, text: str) -> list[str]:
        """The tokens of a text; none of one that is blank."""
        match self.rule:
            case "letters":
                return list(self.even(text))
            case "spaces":
                return self.even(text).split()
            case "words":
                return tokenise(text, lower=self.lower)
            case "subwords":
                return cut(self._processor, self.even(text))

    def join(self, tokens: Sequence[str]) -> str:
        """The text of tokens."""
        match self.rule:
            case "letters":
                return "".join(tokens)
            case "spaces":
                return " ".join(tokens)
            case "words":
                return _join_words(tokens)
            case "subwords":
                return joined(tokens)

    def pieces(self) -> Vocabulary:
        """The vocabulary that comes with a model.

        Raises:
            DataError: the rule has none.
        """
        return entries_of(self._processor)

    @cached_property
    def _processor(self) -> Processor:
        if self.model is None:
            raise DataError(f"segmenter: {self.rule} has no model")
        return open_subwords(self.model)


@dataclass(frozen=True, slots=True)
class Side:
    """Sources or targets: how they are cut, and the ids of their tokens."""

    segmenter: Segmenter
    vocabulary: Vocabulary

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens, without BEGIN and END."""
        return self.vocabulary.encode(self.segmenter.split(text))

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The tokens of ids up to the first END, without PAD and BEGIN.

        Raises:
            DataError: an id that no entry has.
        """
        kept: list[int] = []
        for each in ids:
            if each == END:
                break
            if each not in (PAD, BEGIN):
                kept.append(each)
        return self.vocabulary.decode(kept)

    def text(self, ids: Iterable[int]) -> str:
        """The text of ids, under the same conditions."""
        return self.segmenter.join(self.decode(ids))


def learn_side(
    texts: Iterable[str],
    rule: Rule,
    *,
    lower: bool = False,
    minimum_count: int = 1,
    maximum: int | None = None,
    kind: Kind = "bpe",
) -> Side:
    """The segmenter of a rule and the vocabulary of the training texts.

    Args:
        texts: of the training rows only.
        rule: how they are cut.
        lower: whether upper and lower case are to be one.
        minimum_count: of tokens that get an entry; subwords pass it over.
        maximum: of entries, the special ones counted; subwords need one.
        kind: of subwords.

    Raises:
        DataError: subwords that cannot be learnt.
    """
    if rule != "subwords":
        segmenter = Segmenter(rule, lower)
        cut_texts = map(segmenter.split, texts)
        vocabulary = Vocabulary.build(cut_texts, minimum_count=minimum_count, maximum=maximum)
        return Side(segmenter, vocabulary)
    if maximum is None:
        raise DataError("subwords: expected a vocabulary size, got none")
    even = (_even(text, rule, lower=lower) for text in texts)
    segmenter = Segmenter(rule, lower, train_subwords(even, maximum, kind))
    return Side(segmenter, segmenter.pieces())


def _even(text: str, rule: Rule, *, lower: bool) -> str:
    normal = unicodedata.normalize("NFC", text.lower() if lower else text)
    return " ".join((normal.replace(SPACE, " ") if rule == "subwords" else normal).split())


def _join_words(tokens: Sequence[str]) -> str:
    """Tokens with a space between two where prose has one."""
    text = "".join(tokens[:1])
    for place, (left, right) in enumerate(pairwise(tokens)):
        after = tokens[place + 2] if place + 2 < len(tokens) else ""
        before = tokens[place - 1] if place else ""
        is_tight = (
            right in CLOSING
            or (left in OPENING and _is_word(right))
            or (right in JOINING and _is_word(left) and _is_word(after))
            or (left in JOINING and _is_word(before) and _is_word(right))
        )
        text += right if is_tight else f" {right}"
    return text


def _is_word(token: str) -> bool:
    return token[:1].isalnum()
