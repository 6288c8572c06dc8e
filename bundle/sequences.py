"""What a contract says of rows of unequal length, and of the numbers in them.

Rules:

- A padded axis goes by its name in the graph (`dim_param`). Each input that carries it has a value
  that fills short rows up.
- Outputs that carry the axis's name are cut back along it to the row's length. The graph says
  which they are, so it is not repeated here.
- What an input holds beyond a row's length must change nothing within it: export proves that of
  the graph before a bundle is published.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weir.bundle.field_types import ContractObject, FileName, Index, Integer, Positive


class PaddedAxis(ContractObject):
    """An axis along which rows differ in length, so that a batch fills the shorter ones up.

    `maximum` is the most entries a row may have, the least is 1. `lengths` is the input [batch]
    that holds each row's length; the server fills it in when a client leaves it out. None: the
    network sees by the padding itself where a row ends. `padding` holds, for each input that
    carries the axis, what fills it up.
    """

    maximum: Positive
    lengths: str | None = None
    padding: Annotated[dict[str, Integer], Field(min_length=1)]


class ValueRange(ContractObject):
    """The least and the greatest value an input of integers may hold."""

    minimum: Integer = 0
    maximum: Integer

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.maximum < self.minimum:
            raise ValueError(f"maximum: expected at least {self.minimum}, got {self.maximum}")
        return self


class Tokenisation(ContractObject):
    """How a text becomes one row of ids.

    `words` takes runs of letters, digits and underscores, and every other mark by itself (see
    `tokenise`); `spaces` takes what white space separates; `letters` every character by itself;
    `subwords` cuts by `model`, the file of a sentencepiece model. `lower` lowers a token before it
    is looked up in the vocabulary of the input `tokens`. `characters` is the input for the letters
    of each token as it was written, None where the network reads no spelling. `unknown` is the id of
    what is not in a vocabulary, in both the same.
    """

    rule: Literal["words", "spaces", "letters", "subwords"]
    lower: bool = False
    unknown: Index
    tokens: str = "tokens"
    characters: str | None = None
    model: FileName | None = None

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if (self.rule == "subwords") != (self.model is not None):
            raise ValueError(f"model: expected one with subwords alone, got {self.model}")
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
            raise ValueError(f"{where}: expected another axis than the batch's")
        _check_padding(where, axis, ranges)
        for tensor, value in axis.padding.items():
            if values.setdefault(tensor, value) != value:
                raise ValueError(
                    f"{where}: padding of {tensor!r}: expected {values[tensor]} as along its other "
                    f"axis, got {value}"
                )
        if axis.lengths is None:
            continue
        if other := counted.get(axis.lengths):
            raise ValueError(f"{where}: lengths: {axis.lengths!r} holds those of {other!r} already")
        counted[axis.lengths] = name
    padded = {name for axis in axes.values() for name in axis.padding}
    if both := sorted(padded & set(counted)):
        raise ValueError(f"padded_axes: expected lengths in an input of their own, got {both}")
    if both := sorted(set(ranges) & set(counted)):
        raise ValueError(f"value_ranges: the padded axis says what lengths may be, got {both}")


def check_tokenisation(tokenisation: Tokenisation | None, vocabularies: Collection[str]) -> None:
    """Raise ValueError unless each input that is made of a text has a vocabulary."""
    if tokenisation is None:
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
                f"as its values, got {value}"
            )
