"""Sequence sections of a contract: padded axes, value ranges and tokenisation.

Rules:

- A padded axis is identified by its name in the graph (`dim_param`). Each input with the axis has a
  padding value, which fills up short rows.
- Outputs with the axis are cut along it to the row's length. They are known from the graph.
- Values beyond a row's length must not change the row's outputs. Export verifies that before it
  publishes a bundle.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weir.bundle.field_types import ContractObject, FileName, Index, Integer, Positive


class PaddedAxis(ContractObject):
    """An axis along which rows differ in length, so that shorter rows of a batch are padded.

    A row has 1 to `maximum` entries. `lengths` is the input [batch] with each row's length. `mask`
    is the input [batch, axis] of an attention mask: 1 for an entry of the row, 0 for padding. The
    server computes either if a client omits it. Without both, the padding itself marks the end of a
    row. `padding` is the padding value of each input with the axis, the mask included.
    """

    maximum: Positive
    lengths: str | None = None
    mask: str | None = None
    padding: Annotated[dict[str, Integer], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_mask(self) -> Self:
        if self.mask is None:
            return self
        if self.lengths is not None:
            raise ValueError(
                f"mask: expected lengths or a mask, got {self.lengths} and {self.mask}"
            )
        if self.padding.get(self.mask) != 0:
            got = self.padding.get(self.mask, "none")
            raise ValueError(f"mask: expected the padding 0 for {self.mask!r}, got {got}")
        if len(self.padding) == 1:
            raise ValueError(f"mask: expected another input with the axis, got {self.mask!r} alone")
        return self

    @property
    def length_input(self) -> str | None:
        """The input that gives a row's length: lengths or mask; None if the padding does."""
        return self.lengths or self.mask


class ValueRange(ContractObject):
    """The minimum and maximum of an integer input."""

    minimum: Integer = 0
    maximum: Integer

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.maximum < self.minimum:
            raise ValueError(f"maximum: expected at least {self.minimum}, got {self.maximum}")
        return self


class Tokenisation(ContractObject):
    """Conversion of a text into a row of ids.

    - `rule`: `words` splits into runs of letters, digits and underscores, and single other
      characters (see `text`); `spaces` splits at white space; `letters` splits into characters;
      `subwords` splits with a sentencepiece model; `tokenizer-json` does all that a tokenizer.json
      of the library `tokenizers` says, so the file has the vocabulary and the unknown token too.
    - `lower`: whether tokens are lowercased before the lookup in the vocabulary of `tokens`.
    - `unknown`: the id of a token or character that is not in its vocabulary.
    - `characters`: the input for the characters of each token, not lowercased; None: there is none.
    - `token_type_ids`: the input for the type id (segment) of each token; None: there is none.
    - `model`: the file of the sentencepiece model, or the tokenizer.json.
    """

    rule: Literal["words", "spaces", "letters", "subwords", "tokenizer-json"]
    lower: bool = False
    unknown: Index | None = None
    tokens: str = "tokens"
    characters: str | None = None
    token_type_ids: str | None = None
    model: FileName | None = None

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if (self.rule in ("subwords", "tokenizer-json")) != (self.model is not None):
            raise ValueError(
                f"model: expected one with subwords or tokenizer-json alone, got {self.model}"
            )
        return self

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        is_json = self.rule == "tokenizer-json"
        if (self.unknown is None) != is_json:
            expected = "none, the file has it" if is_json else "an id"
            raise ValueError(f"unknown: expected {expected}, got {self.unknown}")
        if is_json and (self.lower or self.characters is not None):
            raise ValueError("expected neither lower nor characters with tokenizer-json, got one")
        if self.token_type_ids is not None and not is_json:
            raise ValueError(f"token_type_ids: expected tokenizer-json with them, got {self.rule}")
        return self


def check_axes(
    axes: Mapping[str, PaddedAxis], ranges: Mapping[str, ValueRange], batch_axis: str | None
) -> None:
    """Raise ValueError unless padded axes, lengths and ranges fit together."""
    if axes and batch_axis is None:
        raise ValueError("padded_axes: expected a batch axis beside them, got none")
    counted: dict[str, str] = {}
    values: dict[str, int] = {}
    for name, axis in axes.items():
        where = f"padded_axes.{name}"
        if name == batch_axis:
            raise ValueError(f"{where}: expected another axis than the batch axis")
        _check_padding(where, axis, ranges)
        for tensor, value in axis.padding.items():
            if values.setdefault(tensor, value) != value:
                raise ValueError(
                    f"{where}: padding of {tensor!r}: expected {values[tensor]}, as for its other "
                    f"axis, got {value}"
                )
        if axis.length_input is None:
            continue
        if other := counted.get(axis.length_input):
            key = "mask" if axis.mask else "lengths"
            raise ValueError(
                f"{where}: {key}: expected an input of its own, "
                f"got {axis.length_input!r} of {other!r}"
            )
        counted[axis.length_input] = name
    counted = {axis.lengths: name for name, axis in axes.items() if axis.lengths is not None}
    padded = {name for axis in axes.values() for name in axis.padding}
    if both := sorted(padded & set(counted)):
        raise ValueError(f"padded_axes: expected lengths in an input without padding, got {both}")
    if both := sorted(set(ranges) & set(counted)):
        raise ValueError(f"value_ranges: expected none for lengths of a padded axis, got {both}")


def check_tokenisation(
    task: str, tokenisation: Tokenisation | None, vocabularies: Collection[str]
) -> None:
    """Raise ValueError unless the inputs of tokens and characters have vocabularies.

    A tokenizer.json has its own vocabulary; it classifies texts.
    """
    if tokenisation is None:
        return
    if tokenisation.rule == "tokenizer-json":
        if task != "sequence-classification":
            raise ValueError(
                "tokenisation: tokenizer-json: expected the task sequence-classification, "
                f"got {task}"
            )
        return
    for name in (tokenisation.tokens, tokenisation.characters):
        if name is not None and name not in vocabularies:
            raise ValueError(f"tokenisation: expected a vocabulary of {name!r}, got none")


def _check_padding(where: str, axis: PaddedAxis, ranges: Mapping[str, ValueRange]) -> None:
    for name, value in axis.padding.items():
        bounds = ranges.get(name)
        if bounds is not None and not bounds.minimum <= value <= bounds.maximum:
            raise ValueError(
                f"{where}: padding of {name!r}: expected {bounds.minimum} to {bounds.maximum}, "
                f"its value range, got {value}"
            )
