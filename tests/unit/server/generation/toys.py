"""An encoder-decoder in whole numbers: a row's hypotheses depend on that row alone, bit for bit.

It also checks its inputs: wrong padding or a wrong length is an error.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.decoding import Decoding
from weir.server.generation.decoder_batch import DecoderBatch, Row, StepResult
from weir.server.generation.sampling import Hypothesis
from weir.server.generation.sampling_parameters import SearchParameters
from weir.server.generation.slots import Layout
from weir.server.runtime.io_binding import BoundOutputs, DeviceTensor

Array = NDArray[Any]

WORDS = 9
PAD, BEGIN, END = 0, 2, 3
TOKEN_PAD, MEMORY_PAD = 0, -1
_PRIME = 1009

DECODING = Decoding(
    lengths="lengths",
    attention="attention",
    from_encoder={"memory": "memory", "state": "state"},
    from_step={"state": "next_state"},
    begin=BEGIN,
    end=END,
    maximum_steps=12,
)
LAYOUT = Layout(DECODING, {"tokens": TOKEN_PAD, "memory": MEMORY_PAD})


@dataclass(frozen=True)
class OnDevice:
    """A tensor in another memory; every copy from it is logged."""

    values: Array
    copies: list[str] = field(default_factory=list)

    def numpy(self) -> Array:
        self.copies.append("to host")
        return self.values.copy()


@dataclass
class FakeDevice:
    """Runs a decoder on arrays of its own.

    Attributes:
        copies: "to device" and "to host", one for each copied array.
    """

    decode: Callable[[Mapping[str, Array]], dict[str, Array]]
    copies: list[str] = field(default_factory=list)

    def place(self, array: Array) -> OnDevice:
        self.copies.append("to device")
        return OnDevice(array.copy(), self.copies)

    def run_bound(
        self, inputs: Mapping[str, Array | DeviceTensor], keep: Collection[str]
    ) -> BoundOutputs:
        values = {
            name: each.values if isinstance(each, OnDevice) else np.asarray(each).copy()
            for name, each in inputs.items()
        }
        outputs = self.decode(values)
        kept = {name: OnDevice(outputs.pop(name), self.copies) for name in keep}
        return BoundOutputs(outputs, kept)


@dataclass
class Toy:
    """Both graphs, and a log of their runs.

    Attributes:
        ends: whether an answer may come to its end by itself.
        calls: "encode" or "decode" with the rows of each run.
        errors: raised by the next runs of a kind, one each.
    """

    ends: bool = True
    calls: list[tuple[str, int]] = field(default_factory=list)
    errors: dict[str, list[Exception]] = field(default_factory=dict)

    def generation(self, capacity: int, *, on_device: bool = False) -> DecoderBatch:
        return DecoderBatch(
            LAYOUT,
            encode=self.encode,
            decode=self.decode,
            lengths="lengths",
            capacity=capacity,
            device=FakeDevice(self.decode) if on_device else None,
        )

    def encode(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        tokens, lengths = inputs["tokens"], inputs["lengths"]
        self._begin("encode", len(tokens))
        is_own = np.arange(tokens.shape[1]) < lengths[:, None]  # (B, T)
        assert (tokens[~is_own] == TOKEN_PAD).all()
        assert lengths.max() == tokens.shape[1], "more time than the longest needs"
        places = np.arange(1, tokens.shape[1] + 1)
        state = np.where(is_own, tokens * places, 0).sum(axis=1) % _PRIME
        # Beyond its end a row's memory is not padding, so that reading it shows.
        memory = np.where(is_own, tokens, 500)[..., None].astype(np.float64)  # (B, T, 1)
        return {"memory": memory, "state": state[:, None]}

    def decode(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        previous, state, lengths = inputs["previous"], inputs["state"][:, 0], inputs["lengths"]
        memory = inputs["memory"][..., 0]  # (B, T)
        self._begin("decode", len(previous))
        is_own = np.arange(memory.shape[1]) < lengths[:, None]
        assert (memory[~is_own] == MEMORY_PAD).all()
        source = np.where(is_own, memory, 0).sum(axis=1).astype(np.int64)
        state = (state * 31 + previous * 7 + source) % _PRIME  # (B,)
        scores = -((state[:, None] * np.arange(3, 3 + WORDS) ** 2) % 61) / 16 - 0.125  # (B, V)
        # No two hypotheses are equally likely: an oracle may break ties otherwise.
        scores -= ((state[:, None] * 7 + np.arange(WORDS) * 131) % 997) * 1.7e-6
        if not self.ends:
            scores[:, END] = -np.inf
        attention = np.where(is_own, memory + state[:, None], 0.0)
        return {
            "log_probabilities": scores,
            "next_state": state[:, None],
            "attention": attention,
        }

    def _begin(self, kind: str, rows: int) -> None:
        self.calls.append((kind, rows))
        if self.errors.get(kind):
            raise self.errors[kind].pop(0)


def row(
    tokens: Sequence[int],
    search: SearchParameters | None = None,
    *,
    number: int = 0,
    limit: int = 12,
    attends: bool = True,
) -> Row:
    search = search or SearchParameters()
    return Row(
        number=number,
        inputs={"tokens": np.array(tokens)},
        length=len(tokens),
        limit=limit,
        search=search,
        arrived_s=0.0,
        wants_attention=attends,
    )


def alone(one: Row, *, ends: bool = True) -> list[Hypothesis]:
    """The hypotheses of an equal row alone in a batch."""
    copy = row(one.inputs["tokens"].tolist(), one.search, number=one.number, limit=one.limit)
    generation = Toy(ends).generation(one.search.slots)
    generation.add(generation.encode([copy]))
    run_out(generation)
    return copy.hypotheses


def forced(one: Row, answer: Hypothesis) -> tuple[float, Array]:
    """Log-probability and attention that the graphs give the tokens of a hypothesis."""
    toy, lengths = Toy(), np.array([one.length])
    memory = toy.encode({"tokens": one.inputs["tokens"][None], "lengths": lengths})
    given = {"memory": memory["memory"], "lengths": lengths}
    previous, state, total, attention = BEGIN, memory["state"], 0.0, []
    for token in [*answer.tokens, END] if answer.is_complete else answer.tokens:
        step = toy.decode({**given, "previous": np.array([previous]), "state": state})
        total += float(step["log_probabilities"][0, token])
        attention.append(step["attention"][0])
        previous, state = token, step["next_state"]
    return total, np.array(attention)


def step(generation: DecoderBatch) -> StepResult:
    """Let ready rows join, and make a step."""
    generation.join()
    return generation.step()


def run_out(generation: DecoderBatch) -> list[StepResult]:
    """Step until nothing is left."""
    steps = []
    while generation.is_busy:
        steps.append(step(generation))
        assert len(steps) < 10_000, "it does not end"
    return steps


def plain(answers: Sequence[Hypothesis]) -> list[tuple[Any, ...]]:
    """Hypotheses as values that compare exactly."""
    return [
        (each.tokens, each.log_probability, each.score, each.is_complete)
        + (() if each.attention is None else (each.attention.tolist(),))
        for each in answers
    ]
