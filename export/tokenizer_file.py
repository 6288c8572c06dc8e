"""Tokenizer file: a tokenizer.json of the library `tokenizers`, for the export of a classifier.

It gives all that the export of a network of token ids needs besides the network: example rows of
texts, and the axes, padding and value ranges of the specification.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from weir.bundle import tokenizer_json
from weir.bundle.errors import BrokenBundle
from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange
from weir.bundle.tokenizer_json import FILE_NAME, TokenizerJson, UnreadableText
from weir.export.errors import ExportError

Array = NDArray[Any]

_MAXIMUM = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFile:
    """A tokenizer.json and the inputs of the network that it fills.

    Attributes:
        file: its bytes.
        maximum: most tokens of a row.
        tokens: the input of token ids.
        attention_mask, token_type_ids: further inputs; None if the network has none.
        padding: the id that fills up short rows.
        greatest: the greatest id of the vocabulary.
        axis: the name of the axis of tokens.
    """

    file: bytes = field(repr=False)
    maximum: int
    tokens: str
    attention_mask: str | None
    token_type_ids: str | None
    padding: int
    greatest: int
    batch_axis: str
    axis: str

    @classmethod
    def read(
        cls,
        path: Path | str,
        *,
        maximum: int | None = None,
        tokens: str = "input_ids",
        attention_mask: str | None = "attention_mask",
        token_type_ids: str | None = "token_type_ids",  # noqa: S107 - no password
        batch_axis: str = "batch",
        axis: str = "time",
    ) -> Self:
        """Read a tokenizer.json.

        Args:
            maximum: most tokens of a row, as the network's positions allow; by default the length
                of the file's truncation, or 512.

        Raises:
            ExportError: the file is missing or broken.
        """
        try:
            file = Path(path).read_bytes()
        except OSError as error:
            raise ExportError(f"{path}: {error.strerror}") from error
        opened = _opened(file, None)
        return cls(
            file=file,
            maximum=(opened.truncation or _MAXIMUM) if maximum is None else maximum,
            tokens=tokens,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            padding=opened.padding,
            greatest=opened.greatest,
            batch_axis=batch_axis,
            axis=axis,
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that it fills, all (rows, tokens)."""
        names = (self.tokens, self.attention_mask, self.token_type_ids)
        return tuple(name for name in names if name is not None)

    def encode(self, texts: Sequence[str]) -> dict[str, Array]:
        """Texts as rows of the inputs, INT64 (rows, tokens), padded to the longest.

        Raises:
            ExportError: there is no text, one has no tokens, or more than the maximum.
        """
        opened = _opened(self.file, self.maximum)
        try:
            encodings = [opened.encode(text) for text in texts]
        except UnreadableText as error:
            raise ExportError(f"{FILE_NAME}: {error}") from error
        lengths = [len(each.ids) for each in encodings]
        if not lengths or not 1 <= min(lengths) <= max(lengths) <= self.maximum:
            raise ExportError(
                f"{FILE_NAME}: expected texts of 1 to {self.maximum} tokens, got {lengths[:8]}"
            )
        return tokenizer_json.rows(encodings, self.tokenisation, self.padded_axes[self.axis])

    @property
    def axes(self) -> dict[str, dict[int, str]]:
        """`axes` of the specification."""
        return {name: {0: self.batch_axis, 1: self.axis} for name in self.inputs}

    @property
    def padded_axes(self) -> dict[str, PaddedAxis]:
        """`padded_axes` of the specification."""
        padding = {name: self.padding if name == self.tokens else 0 for name in self.inputs}
        return {
            self.axis: PaddedAxis(maximum=self.maximum, mask=self.attention_mask, padding=padding)
        }

    @property
    def value_ranges(self) -> dict[str, ValueRange]:
        """`value_ranges` of the specification."""
        return {self.tokens: ValueRange(maximum=self.greatest)}

    @property
    def tokenisation(self) -> Tokenisation:
        """`tokenisation` of the specification."""
        return Tokenisation(
            rule="tokenizer-json",
            tokens=self.tokens,
            token_type_ids=self.token_type_ids,
            model=FILE_NAME,
        )


def _opened(file: bytes, maximum: int | None) -> TokenizerJson:
    try:
        return TokenizerJson(file, maximum=maximum)
    except BrokenBundle as error:
        raise ExportError(str(error)) from error
