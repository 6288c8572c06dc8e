"""Tokenizer.json: the rule `tokenizer-json`, shared by export and the server.

A tokenizer.json is what the library `tokenizers` reads: normalisation, split, vocabulary, and the
special tokens around a text.

Rules:

- A text may spell special tokens; the file decides what they become, as in the library.
- The file's padding is not used: rows are padded as the contract says.
- The file's truncation is used, to the row's maximum at most. Without one, a text is not cut.
- A WordPiece model is tried with each end of a word: its own limit of a word bounds that.
- The library panics at some files and texts. A panic is an error of the file or of the text.
"""

import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from weir.bundle.errors import BrokenBundle
from weir.bundle.sequences import PaddedAxis, Tokenisation

if TYPE_CHECKING:
    import tokenizers

Array = NDArray[Any]
Result = TypeVar("Result")

FILE_NAME = "tokenizer.json"
# Characters that are shown of a library's message.
_SHOWN = 200
_ENTRIES = 100
# Characters of a word that WordPiece splits; files have 100. Without a limit, one word of 16,000
# takes 30 s.
_MOST_WORD_CHARACTERS = 1000
_PAD_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>")


class UnreadableText(Exception):
    """The library cannot encode a text; its reason is not sent to a client."""


class EncodedText(Protocol):
    """A text as a model reads it: an id and a type (segment) for each token."""

    @property
    def ids(self) -> Sequence[int]:
        """The token ids."""

    @property
    def type_ids(self) -> Sequence[int]:
        """The token type ids."""


class TokenizerJson:
    """An opened tokenizer.json; safe to use from several threads.

    Args:
        file: the bytes of the file.
        maximum: most tokens of a row, which bounds the file's truncation.

    Attributes:
        unknown: the id of the unknown token; None if there is none.
        padding: the id of the padding token, 0 if there is none.
        greatest: the greatest id of the vocabulary.
        entries: some entries of the vocabulary.
        truncation: most tokens that the file leaves of a text; None if it does not cut texts.

    Raises:
        BrokenBundle: the file is broken, or `tokenizers` is not installed.
    """

    def __init__(self, file: bytes, *, maximum: int | None = None) -> None:
        try:
            tokenizer = _guarded(lambda: _open(file))
            self.unknown = _guarded(lambda: _unknown_id(tokenizer, file))
            self.padding = _padding_id(tokenizer)
            vocabulary = _guarded(tokenizer.get_vocab)
            self.truncation = _guarded(lambda: _limit_length(tokenizer, maximum))
            _guarded(tokenizer.no_padding)
        except _LibraryError as error:
            raise BrokenBundle(f"expected a {FILE_NAME}, got {error}") from error
        self.greatest = max(vocabulary.values(), default=0)
        self.entries = sorted(vocabulary)[:_ENTRIES]
        self._tokenizer = tokenizer

    def encode(self, text: str | Sequence[str]) -> "tokenizers.Encoding":
        """Encode a text, or one that is split into words; UnreadableText if it cannot be."""
        is_split = not isinstance(text, str)

        def encode() -> "tokenizers.Encoding":
            # A batch of one: `encode` holds the GIL.
            (encoding,) = self._tokenizer.encode_batch(
                [list(text) if is_split else text], is_pretokenized=is_split
            )
            return encoding

        try:
            return _guarded(encode)
        except _LibraryError as error:
            raise UnreadableText(str(error)) from error


def rows(
    texts: Sequence[EncodedText], tokenisation: Tokenisation, time: PaddedAxis
) -> dict[str, Array]:
    """The model's inputs: each text is a row, padded to the longest.

    Returns:
        Tokens (rows, T); lengths (rows,) or the attention mask (rows, T) where the model takes
        them, and token type ids (rows, T).
    """
    lengths = [len(text.ids) for text in texts]
    values: dict[str, list[Sequence[int]]] = {tokenisation.tokens: [text.ids for text in texts]}
    if time.mask is not None:
        values[time.mask] = [[1] * length for length in lengths]
    if tokenisation.token_type_ids is not None:
        values[tokenisation.token_type_ids] = [text.type_ids for text in texts]
    inputs = {} if time.lengths is None else {time.lengths: np.array(lengths)}
    for name, own in values.items():
        array = np.full((len(own), max(lengths)), time.padding.get(name, 0), np.int64)
        for number, row in enumerate(own):
            array[number, : len(row)] = row
        inputs[name] = array
    return inputs


class _LibraryError(Exception):
    """An error or a panic of the library."""


def _guarded(function: Callable[[], Result]) -> Result:
    """Call the library.

    A panic of Rust is a BaseException, of a class that cannot be imported.
    """
    try:
        return function()
    except BrokenBundle:
        raise
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"
        if not is_panic and not isinstance(error, Exception):
            raise
        raise _LibraryError(str(error).split("\n")[0][:_SHOWN]) from error


def _open(file: bytes) -> "tokenizers.Tokenizer":
    # It would start a thread for each core; the server has a worker pool of its own.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Imported only for a bundle that needs it.
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise BrokenBundle(f"tokenizer-json needs {error.name}: pip install tokenizers") from error
    tokenizer = Tokenizer.from_buffer(file)
    limit = getattr(tokenizer.model, "max_input_chars_per_word", 0)
    if limit > _MOST_WORD_CHARACTERS:
        raise BrokenBundle(
            f"{FILE_NAME}: max_input_chars_per_word: expected at most {_MOST_WORD_CHARACTERS}, "
            f"got {limit}"
        )
    return tokenizer


def _unknown_id(tokenizer: "tokenizers.Tokenizer", file: bytes) -> int | None:
    model = tokenizer.model
    if (token := getattr(model, "unk_token", None)) is not None:
        return tokenizer.token_to_id(token)
    if type(model).__name__ != "Unigram":
        return None
    # The library does not expose the unknown token of a Unigram model.
    unknown = json.loads(file)["model"].get("unk_id")
    return unknown if isinstance(unknown, int) else None


def _padding_id(tokenizer: "tokenizers.Tokenizer") -> int:
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    found = (tokenizer.token_to_id(token) for token in _PAD_TOKENS)
    return next((each for each in found if each is not None), 0)


def _limit_length(tokenizer: "tokenizers.Tokenizer", maximum: int | None) -> int | None:
    """Make the file's truncation keep to the maximum; its length, None without a truncation."""
    truncation = tokenizer.truncation
    if truncation is None:
        return None
    length = int(truncation["max_length"])
    length = length if maximum is None else min(length, maximum)
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if length <= special:
        raise BrokenBundle(
            f"{FILE_NAME}: truncation: expected more than its {special} special tokens, "
            f"got {length}"
        )
    # Without the stride, at some of which the library panics: the rest of a text is not used.
    tokenizer.enable_truncation(length, direction=truncation["direction"])
    return length
