"""Decoding section of a contract: the connection of `encoder.onnx` and `decoder.onnx`.

Rules:

- The encoder runs once for each row. The decoder runs once for each step: it takes the previous
  token and the state, and returns log-probabilities of the next token and the new state.
- The graphs do not search; the server does.
- All tensors between the graphs have the batch axis first. So a row's part can be stored by itself,
  and rows may join and leave a batch between steps.
- The first input token is `begin`. Padding and `begin` are never chosen. A row ends with `end` or
  at its step limit.
"""

import math
from collections.abc import Collection, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weir.bundle.field_types import ContractObject, Index, NotNegative, Positive
from weir.bundle.sequences import ValueRange

Detokenisation = Literal["spaces", "letters", "subwords"]


class Decoding(ContractObject):
    """Inputs and outputs that connect the two graphs, special tokens, step limits, detokenisation.

    - `previous`, `lengths` [batch]: decoder inputs, the previous token and the source lengths;
      `lengths` is None if the decoder does not read them.
    - `log_probabilities` [batch, tokens], `attention` [batch, time]: decoder outputs; `attention`
      is None without attention.
    - `from_encoder`: for each other decoder input, the encoder output with its first value.
    - `from_step`: for each of these that changes, the decoder output with its next value. The
      others stay constant while a row is decoded.
    - `maximum_steps`: the step limit of a row; the end token counts as a step. `steps_per_token`
      also limits a row of n source tokens to `extra_steps` + `steps_per_token` * n, rounded up.
    - `detokenisation`: `spaces` joins tokens by spaces, `letters` without. `subwords` joins them
      without and replaces each U+2581 by a space. None: the tokens are no text.
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
            raise ValueError(f"from_step: expected inputs of from_encoder, got {strays}")
        own = {self.previous, self.lengths}
        if both := sorted(set(self.from_encoder) & own):
            raise ValueError(
                f"from_encoder: expected inputs other than previous and lengths, got {both}"
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
        """The step limit of a row with this many source tokens, 1 or more."""
        if self.steps_per_token is None:
            return self.maximum_steps
        steps = self.extra_steps + math.ceil(self.steps_per_token * source_tokens)
        return max(1, min(self.maximum_steps, steps))


def check_decoding(
    decoding: Decoding, ranges: Mapping[str, ValueRange], vocabularies: Collection[str]
) -> None:
    """Raise ValueError unless special tokens are valid inputs and texts have a vocabulary."""
    bounds = ranges.get(decoding.previous)
    if bounds is None:
        raise ValueError(f"decoding: expected a value range of {decoding.previous!r}, got none")
    for key in ("padding", "begin", "end"):
        value = getattr(decoding, key)
        if not bounds.minimum <= value <= bounds.maximum:
            raise ValueError(
                f"decoding: {key}: expected {bounds.minimum} to {bounds.maximum}, the range of "
                f"{decoding.previous!r}, got {value}"
            )
    if decoding.detokenisation is not None and decoding.previous not in vocabularies:
        raise ValueError(f"decoding: expected a vocabulary of {decoding.previous!r}, got none")
