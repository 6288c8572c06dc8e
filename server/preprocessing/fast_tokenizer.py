"""Fast tokenizer: texts → ids by a tokenizer.json (`weir.bundle.tokenizer_json`). Pure.

A text with more tokens than the axis's maximum raises InvalidRequest, unless the file truncates it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from weir.bundle import tokenizer_json
from weir.bundle.errors import BrokenBundle
from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange
from weir.bundle.tokenizer_json import TokenizerJson, UnreadableText
from weir.server.errors import InvalidRequest, ModelLoadError
from weir.server.preprocessing.tokenized_text import TextLimits, TokenizedText

if TYPE_CHECKING:
    import tokenizers

Array = NDArray[Any]


class FastTokenizer:
    """The tokenizer of one bundle's tokenizer.json; safe to use from several threads.

    Args:
        file: the bytes of the tokenizer.json.
        time: the axis of tokens.
        bounds: the value range of the tokens.

    Raises:
        ModelLoadError: the file is broken, has ids beyond the range, or `tokenizers` is not
            installed.
    """

    def __init__(
        self,
        tokenisation: Tokenisation,
        file: bytes,
        *,
        time: PaddedAxis,
        bounds: ValueRange | None,
    ) -> None:
        self.tokenisation = tokenisation
        self._time = time
        self._limits = TextLimits(time.maximum)
        try:
            self._tokenizer = TokenizerJson(file, maximum=time.maximum)
        except BrokenBundle as error:
            raise ModelLoadError(f"tokenisation: {error}") from error
        _check_ids(self._tokenizer.greatest, tokenisation.tokens, bounds)

    def example(self) -> TokenizedText:
        """A short tokenized text, for a check at load; ModelLoadError if none can be made.

        A file may drop a letter that its vocabulary lacks, but not all of its entries.
        """
        reason: Exception = InvalidRequest("its vocabulary is empty")
        for text in ("a", *self._tokenizer.entries):
            try:
                return self.tokenize(text)
            except InvalidRequest as error:
                reason = error.__cause__ if isinstance(error.__cause__, UnreadableText) else error
        raise ModelLoadError(f"tokenisation: {tokenizer_json.FILE_NAME}: {reason}") from reason

    def tokenize(self, text: str) -> TokenizedText:
        """Tokenize a text."""
        self._limits.check_text(text)
        encoding = self._encode(text)
        return self._tokenized(encoding, [text[start:end] for start, end in encoding.offsets])

    def look_up(self, tokens: Sequence[str]) -> TokenizedText:
        """Tokenize words that are split already; each may be several tokens."""
        self._limits.check_count(len(tokens))
        self._limits.check_tokens(tokens)
        encoding = self._encode(tokens)
        pairs = zip(encoding.word_ids, encoding.offsets, strict=True)
        spans = ["" if word is None else tokens[word][slice(*span)] for word, span in pairs]
        return self._tokenized(encoding, spans)

    def rows(self, texts: Sequence[TokenizedText]) -> dict[str, Array]:
        """The model's inputs, a row for each text; see `tokenizer_json.rows`."""
        return tokenizer_json.rows(texts, self.tokenisation, self._time)

    def _encode(self, text: str | Sequence[str]) -> "tokenizers.Encoding":
        try:
            return self._tokenizer.encode(text)
        except UnreadableText as error:
            raise InvalidRequest("the tokenizer cannot read this text") from error

    def _tokenized(self, encoding: "tokenizers.Encoding", spans: Sequence[str]) -> TokenizedText:
        if all(encoding.special_tokens_mask):
            raise InvalidRequest("expected a text with tokens, got none")
        ids = encoding.ids
        self._limits.check_count(len(ids))
        is_unknown = [each == self._tokenizer.unknown for each in ids]
        return TokenizedText(
            # An unknown token is spelled as in the text, the others as in the vocabulary.
            tokens=[
                span if unknown and span else token
                for token, span, unknown in zip(encoding.tokens, spans, is_unknown, strict=True)
            ],
            ids=ids,
            characters=[],
            is_unknown=is_unknown,
            type_ids=encoding.type_ids,
        )


def _check_ids(greatest: int, name: str, bounds: ValueRange | None) -> None:
    if bounds is None or not (bounds.minimum == 0 and greatest <= bounds.maximum):
        got = "no range" if bounds is None else f"values from {bounds.minimum} to {bounds.maximum}"
        raise ModelLoadError(
            f"tokenisation: expected input {name!r} to take the ids 0 to {greatest} of "
            f"{tokenizer_json.FILE_NAME}, got {got}"
        )
