"""What a contract says of a pair of graphs, `encoder.onnx` and `decoder.onnx`, that make sequences of sequences.

Rules:

- The encoder runs once a row, the decoder once a step: previous token and state in, log-probabilities of the
  next token and state out. No graph searches.
- All that passes between them is a tensor with the batch axis first, so a row's part of it can be kept in a
  slot of its own, and rows may join and leave between steps.
- The first token in is the begin. Padding and begin are never chosen. A row ends with the end, or at its limit.
"""

import math
from collections.abc import Collection, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weir.bundle.field_types import ContractObject, Index, NotNegative, Positive
from weir.bundle.sequences import ValueRange

Detokenisation = Literal["spaces", "letters", "subwords"]


class Decoding(ContractObject):
    """How the two graphs work together, and what a sequence of their tokens is.

    `previous` and `lengths` are inputs of the decoder: the token before [batch], and the source's lengths
    [batch], None where it needs none. `log_probabilities` [batch, tokens] and `attention` [batch, time] are
    its outputs, `attention` None where it has none.

    `from_encoder` holds, for each other input of the decoder, the output of the encoder it begins with.
    `from_step` holds, for those of them that change, the output of the decoder that the next step begins
    with; the others stay as they are, as long as a row is decoded.

    `maximum_steps` bounds what one row may cost; with `steps_per_token` a row of n source tokens also makes
    at most `extra_steps` + `steps_per_token` * n, rounded up. The end counts as a step.

    `detokenisation` says how tokens become a text: joined by `spaces`, as `letters` without any, or as
    `subwords`, likewise, and then each U+2581 is a space. None: they are no text.
    """

    previous: str = "previous"
    log_probabilities: str = "log_probabilities"
    lengths: str | None = None
    attention: str | None = None
    from_encoder: Annotated[dict[str, str], Field(min_length=1)]
    from_step: Annotated[dict[str, str], Field(min_length=1)]
    padding: Index = 0
    begin: Index
    end: Index
    maximum_steps: Positive
    steps_per_token: NotNegative | None = None
    extra_steps: Index = 0
    detokenisation: Detokenisation | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if strays := sorted(set(self.from_step) - set(self.from_encoder)):
            raise ValueError(f"from_step: expected inputs that the encoder begins, got {strays}")
        own = {self.previous, self.lengths}
        if both := sorted(set(self.from_encoder) & own):
            raise ValueError(
                f"from_encoder: expected other inputs than token and lengths, got {both}"
            )
        outputs = [*self.from_step.values(), self.log_probabilities, self.attention]
        if len(set(outputs)) != len(outputs):
            raise ValueError(f"from_step: expected a different output for each, got {outputs}")
        if len({self.padding, self.begin, self.end}) != 3:
            raise ValueError(
                "expected different ids for padding, begin and end, "
                f"got {self.padding}, {self.begin}, {self.end}"
            )
        if self.steps_per_token is None and self.extra_steps:
            raise ValueError(f"extra_steps: expected steps_per_token too, got {self.extra_steps}")
        return self

    def limit(self, source_tokens: int) -> int:
        """The most steps of a row with so many source tokens, 1 or more."""
        if self.steps_per_token is None:
            return self.maximum_steps
        wanted = self.extra_steps + math.ceil(self.steps_per_token * source_tokens)
        return max(1, min(self.maximum_steps, wanted))


def check_decoding(
    decoding: Decoding, ranges: Mapping[str, ValueRange], vocabularies: Collection[str]
) -> None:
    """Raise ValueError unless the tokens that come out may go in, and can be written where they are a text."""
    bounds = ranges.get(decoding.previous)
    if bounds is None:
        raise ValueError(f"decoding: expected a value range of {decoding.previous!r}, got none")
    for key in ("padding", "begin", "end"):
        value = getattr(decoding, key)
        if not bounds.minimum <= value <= bounds.maximum:
            raise ValueError(
                f"decoding: {key}: expected {bounds.minimum} to {bounds.maximum}, as "
                f"{decoding.previous!r}, got {value}"
            )
    if decoding.detokenisation is not None and decoding.previous not in vocabularies:
        raise ValueError(f"decoding: expected a vocabulary of {decoding.previous!r}, got none")
