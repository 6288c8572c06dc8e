"""Tokenizers: a text becomes tokens by one of four rules, and tokens become a text again.

A text is normalised first: lower case if set, Unicode normal form C, each run of white space one
space, no space at its ends. Then a rule splits it:

    letters     every character is a token, spaces too
    spaces      at spaces: texts that come split, such as phonemes
    words       by `weir.bundle.text`; joined with spaces where prose has them
    subwords    by a sentencepiece model

For `letters`, `spaces` and `subwords`, joining the tokens gives the normalised text back. For
`words` the spacing is a guess; the joined text splits into the same tokens.

Subwords keep frequent words whole and split rare ones into pieces, learned from the training texts
by sentencepiece (T. Kudo, J. Richardson, 2018): byte pair encoding (R. Sennrich et al., 2016) or a
unigram model (T. Kudo, 2018). Each side has a model of its own, because the two differ in script
and endings and a decoder's softmax should have no entries of the other language. A model is bytes
in the library's format. Its pieces have the ids of a `Vocabulary`, and white space in a piece is
U+2581, so pieces become a text again without the library.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import sentencepiece

from weir.bundle.text import SUBWORD_SPACE, normalise, tokenise
from weir.training.data.vocabulary import BEGIN, END, PAD, SPECIAL, UNKNOWN, Vocabulary
from weir.training.errors import DataError

Rule = Literal["letters", "spaces", "words", "subwords"]
SubwordKind = Literal["bpe", "unigram"]
SubwordModel = sentencepiece.SentencePieceProcessor

CLOSING = frozenset(".,;:!?%)]}\u2026\u00bb\u201c\u201d")
OPENING = frozenset("([{\u00ab\u201e\u00bf\u00a1$")
JOINING = frozenset("'\u2019-/")
"""No space before CLOSING, after OPENING, or on either side of JOINING between two words."""


@dataclass(frozen=True)
class Tokenizer:
    """One rule with its options; `model` is that of `subwords`, None for the other rules."""

    rule: Rule
    lower: bool = False
    model: bytes | None = None

    def __post_init__(self) -> None:
        if (self.model is not None) != (self.rule == "subwords"):
            got = "none" if self.model is None else f"one for {self.rule}"
            raise DataError(f"tokenizer: expected a model for subwords only, got {got}")

    def normalise(self, text: str) -> str:
        """The text before it is split."""
        return _normalise(text, self.rule, lower=self.lower)

    def split(self, text: str) -> list[str]:
        """The tokens of a text; empty for a blank text."""
        match self.rule:
            case "letters":
                return list(self.normalise(text))
            case "spaces":
                return self.normalise(text).split()
            case "words":
                return tokenise(text.lower() if self.lower else text)
            case "subwords":
                return split_subwords(self._subwords, self.normalise(text))

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
                return join_subwords(tokens)

    def pieces(self) -> Vocabulary:
        """The vocabulary of the subword model."""
        return subword_vocabulary(self._subwords)

    @cached_property
    def _subwords(self) -> SubwordModel:
        if self.model is None:
            raise DataError(f"tokenizer: {self.rule} has no model")
        return open_subwords(self.model)


@dataclass(frozen=True, slots=True)
class Side:
    """The source or the target side of a set of pairs: its tokenizer and its vocabulary."""

    tokenizer: Tokenizer
    vocabulary: Vocabulary

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens, without BEGIN and END."""
        return self.vocabulary.encode(self.tokenizer.split(text))

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The tokens of ids up to the first END, without PAD and BEGIN; `DataError` if unknown."""
        kept: list[int] = []
        for each in ids:
            if each == END:
                break
            if each not in (PAD, BEGIN):
                kept.append(each)
        return self.vocabulary.decode(kept)

    def text(self, ids: Iterable[int]) -> str:
        """The text of ids; errors as `decode`."""
        return self.tokenizer.join(self.decode(ids))


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of a set of pairs."""

    source: Side
    target: Side


def learn_side(
    texts: Iterable[str],
    rule: Rule,
    *,
    lower: bool = False,
    minimum_count: int = 1,
    maximum: int | None = None,
    kind: SubwordKind = "bpe",
) -> Side:
    """Learn the vocabulary of the training texts, and the subword model if the rule has one.

    Args:
        minimum_count: rarer tokens get no entry; subwords ignore it.
        maximum: entries, the special ones included; required by subwords.
    """
    if rule != "subwords":
        tokenizer = Tokenizer(rule, lower)
        vocabulary = Vocabulary.build(
            map(tokenizer.split, texts), minimum_count=minimum_count, maximum=maximum
        )
        return Side(tokenizer, vocabulary)
    if maximum is None:
        raise DataError("subwords: expected a vocabulary size, got none")
    normal = (_normalise(text, rule, lower=lower) for text in texts)
    tokenizer = Tokenizer(rule, lower, train_subwords(normal, maximum, kind))
    return Side(tokenizer, tokenizer.pieces())


def train_subwords(texts: Iterable[str], size: int, kind: SubwordKind) -> bytes:
    """Learn subword pieces; the same texts give the same bytes. `DataError` for too few texts.

    Args:
        texts: normalised texts of the training set. Texts of more than 4,192 bytes are skipped.
        size: most entries, the special ones included; small sets give fewer.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=kind,
            vocab_size=size,
            hard_vocab_limit=False,
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=BEGIN,
            eos_id=END,
            pad_piece=SPECIAL[PAD],
            unk_piece=SPECIAL[UNKNOWN],
            bos_piece=SPECIAL[BEGIN],
            eos_piece=SPECIAL[END],
            character_coverage=1.0,
            # `Tokenizer` has normalised the text, by a rule that needs no table of the library.
            normalization_rule_name="identity",
            # The order in which threads finish would decide the last bits of a unigram model.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(
            f"subwords: no {kind} of {size} entries from these texts: {error}"
        ) from error
    return model.getvalue()


def open_subwords(model: bytes) -> SubwordModel:
    """Open a sentencepiece model; `DataError` if it is none, or has other special ids."""
    try:
        opened = SubwordModel(model_proto=model)
    except RuntimeError as error:
        raise DataError(f"subwords: expected a sentencepiece model, got {error}") from error
    ids = (opened.pad_id(), opened.unk_id(), opened.bos_id(), opened.eos_id())
    if ids != (PAD, UNKNOWN, BEGIN, END):
        raise DataError(f"subwords: expected the special ids 0 to 3, got {ids}")
    return opened


def subword_vocabulary(model: SubwordModel) -> Vocabulary:
    """The pieces of a model, with the ids that the model gives them."""
    return Vocabulary(tuple(model.id_to_piece(each) for each in range(len(model))))


def split_subwords(model: SubwordModel, text: str) -> list[str]:
    """The pieces of a normalised text; a run of unknown characters is one piece."""
    pieces: list[str] = model.encode(text, out_type=str)
    return pieces


def join_subwords(pieces: Iterable[str]) -> str:
    """The text of subword pieces."""
    return "".join(pieces).replace(SUBWORD_SPACE, " ").strip()


def _normalise(text: str, rule: Rule, *, lower: bool) -> str:
    return normalise(text.lower() if lower else text, is_subwords=rule == "subwords")


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
