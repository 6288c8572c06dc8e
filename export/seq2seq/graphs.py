"""An encoder-decoder as two graphs, and a search over them by ONNX Runtime.

The names of `forward`'s arguments are the names of the graphs' inputs.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from weir.bundle.decoding import Decoding
from weir.export.runs.text import LENGTHS, TIME, TOKENS
from weir.training.models.decoder import Memory, Step
from weir.training.models.seq2seq import EncoderDecoder
from weir.training.seq2seq.search import CachedRows, Hypothesis, SpecialTokens, Stepper, greedy

PREVIOUS, STATE, MEMORY, KEYS, CONTEXT = "previous", "state", "memory", "keys", "context"
LOG_PROBABILITIES, NEXT_STATE, ATTENTION = "log_probabilities", "next_state", "attention"

ENCODER_AXES = {TOKENS: {0: "batch", 1: TIME}, LENGTHS: {0: "batch"}}
ATTENTION_DECODER_AXES = {
    PREVIOUS: {0: "batch"},
    STATE: {0: "batch"},
    MEMORY: {0: "batch", 1: TIME},
    KEYS: {0: "batch", 1: TIME},
    LENGTHS: {0: "batch"},
}
CONTEXT_DECODER_AXES = {PREVIOUS: {0: "batch"}, STATE: {0: "batch"}, CONTEXT: {0: "batch"}}


class AttentionEncoderOutputs(NamedTuple):
    """memory (B, T, W), keys (B, T, A), state (B, S)."""

    memory: Tensor
    keys: Tensor
    state: Tensor


class ContextEncoderOutputs(NamedTuple):
    """context (B, W), state (B, S)."""

    context: Tensor
    state: Tensor


class EncoderGraph(nn.Module):
    """The half that runs once a row."""

    def __init__(self, network: EncoderDecoder) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, tokens: Tensor, lengths: Tensor
    ) -> AttentionEncoderOutputs | ContextEncoderOutputs:
        """Encode tokens (B, T) with lengths (B,)."""
        memory = self.network.encode(tokens, lengths)
        if memory.states is not None and memory.keys is not None:
            return AttentionEncoderOutputs(memory.states, memory.keys, memory.state)
        if memory.context is None:
            raise ValueError("memory: expected keys or a context, got neither")
        return ContextEncoderOutputs(memory.context, memory.state)


class AttentionDecoderGraph(nn.Module):
    """The half that runs once a step, with attention."""

    def __init__(self, network: EncoderDecoder) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, previous: Tensor, state: Tensor, memory: Tensor, keys: Tensor, lengths: Tensor
    ) -> Step:
        """Step after tokens (B,) from states (B, S)."""
        return self.network.step(previous, state, Memory(memory, keys, state, None), lengths)


class ContextDecoderGraph(nn.Module):
    """The half that runs once a step, without attention."""

    def __init__(self, network: EncoderDecoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, previous: Tensor, state: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Step after tokens (B,) from states (B, S)."""
        # No lengths: nothing of the source is looked at again.
        made = self.network.step(previous, state, Memory(None, None, state, context), previous)
        return made.log_probabilities, made.state


def decoder_graph(network: EncoderDecoder) -> nn.Module:
    """The decoder's half."""
    return AttentionDecoderGraph(network) if network.attends else ContextDecoderGraph(network)


def decode(
    encoder: onnxruntime.InferenceSession,
    decoder: onnxruntime.InferenceSession,
    decoding: Decoding,
    inputs: Mapping[str, Tensor],
) -> list[Hypothesis]:
    """The greedy answers of two graphs, put together as their contract says."""
    lengths = inputs[LENGTHS]
    names = [output.name for output in encoder.get_outputs()]
    values = encoder.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
    encoded = {
        name: torch.from_numpy(np.asarray(value)) for name, value in zip(names, values, strict=True)
    }
    return greedy(
        _steps(decoder, decoding, encoded, lengths),
        encoded[decoding.from_encoder[_state(decoding)]],
        limits_of(decoding, lengths),
        special_tokens(decoding),
    )


def limits_of(decoding: Decoding, lengths: Tensor) -> Tensor:
    """(B,), the most steps of each row, by the source's lengths (B,)."""
    return torch.tensor([decoding.limit(length) for length in lengths.tolist()])


def special_tokens(decoding: Decoding) -> SpecialTokens:
    """The ids that are no words."""
    return SpecialTokens(padding=decoding.padding, begin=decoding.begin, end=decoding.end)


def _steps(
    session: onnxruntime.InferenceSession,
    decoding: Decoding,
    encoded: Mapping[str, Tensor],
    lengths: Tensor,
) -> Stepper:
    changing = _state(decoding)
    kept = {
        name: encoded[output] for name, output in decoding.from_encoder.items() if name != changing
    }
    if decoding.lengths is not None:
        kept[decoding.lengths] = lengths
    pick = CachedRows(list(kept.values()))
    wanted = [decoding.log_probabilities, decoding.from_step[changing]]
    if decoding.attention is not None:
        wanted.append(decoding.attention)

    def step(previous: Tensor, state: Tensor, rows: Tensor) -> Step:
        own = {name: each for name, each in zip(kept, pick(rows), strict=True) if each is not None}
        given = {decoding.previous: previous, changing: state, **own}
        values = session.run(wanted, {name: tensor.numpy() for name, tensor in given.items()})
        scores, after, *looked = [torch.from_numpy(np.asarray(value)) for value in values]
        return Step(scores, after, looked[0] if looked else None)

    return step


def _state(decoding: Decoding) -> str:
    (name,) = decoding.from_step  # `EncoderDecoder` keeps its state in one tensor
    return name
