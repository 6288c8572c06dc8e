"""The two graphs of an encoder-decoder, and greedy decoding with them by ONNX Runtime.

The argument names of each `forward` are the input names of its graph.
"""

from collections.abc import Mapping
from typing import NamedTuple

import onnxruntime
import torch
from torch import Tensor, nn

from weir.bundle.decoding import Decoding
from weir.export import runtime
from weir.export.seq2seq.fused_step import FusedStep, can_fuse
from weir.training.models.decoder import Memory, Step
from weir.training.models.seq2seq import EncoderDecoder
from weir.training.seq2seq.search import CachedRows, Hypothesis, SpecialTokens, Stepper, greedy

TOKENS, LENGTHS, TIME = "tokens", "lengths", "time"
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
    """The encoder, which runs once for each row."""

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


class _DecoderGraph(nn.Module):
    """The decoder step: the network's own, and in the graph the fused one if there is one."""

    def __init__(self, network: EncoderDecoder) -> None:
        super().__init__()
        self.network = network
        self.fused = FusedStep(network.decoder) if can_fuse(network) else None

    def _step(self, previous: Tensor, state: Tensor, memory: Memory, lengths: Tensor) -> Step:
        if self.fused is not None and torch.onnx.is_in_onnx_export():
            fused: Step = self.fused(previous, state, memory, lengths)
            return fused
        return self.network.step(previous, state, memory, lengths)


class AttentionDecoderGraph(_DecoderGraph):
    """The decoder step with attention."""

    def forward(
        self, previous: Tensor, state: Tensor, memory: Tensor, keys: Tensor, lengths: Tensor
    ) -> Step:
        """One step from previous tokens (B,) and states (B, S)."""
        return self._step(previous, state, Memory(memory, keys, state, None), lengths)


class ContextDecoderGraph(_DecoderGraph):
    """The decoder step without attention."""

    def forward(self, previous: Tensor, state: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """One step from previous tokens (B,) and states (B, S)."""
        # Without attention a step does not read the lengths; any tensor stands for them.
        made = self._step(previous, state, Memory(None, None, state, context), previous)
        return made.log_probabilities, made.state


def decode(
    encoder: onnxruntime.InferenceSession,
    decoder: onnxruntime.InferenceSession,
    decoding: Decoding,
    inputs: Mapping[str, Tensor],
) -> list[Hypothesis]:
    """Decode greedily with two graphs that `decoding` connects."""
    lengths = inputs[LENGTHS]
    names = [output.name for output in encoder.get_outputs()]
    encoded = _run(encoder, names, inputs)
    (state,) = decoding.from_step  # `EncoderDecoder` keeps its state in one tensor
    return greedy(
        _stepper(decoder, decoding, state, encoded, lengths),
        encoded[decoding.from_encoder[state]],
        limits_of(decoding, lengths),
        special_tokens(decoding),
    )


def limits_of(decoding: Decoding, lengths: Tensor) -> Tensor:
    """The step limit (B,) of each row, from the source lengths (B,)."""
    return torch.tensor([decoding.limit(length) for length in lengths.tolist()])


def special_tokens(decoding: Decoding) -> SpecialTokens:
    """The ids of padding, begin and end."""
    return SpecialTokens(padding=decoding.padding, begin=decoding.begin, end=decoding.end)


def _stepper(
    session: onnxruntime.InferenceSession,
    decoding: Decoding,
    state_name: str,
    encoded: Mapping[str, Tensor],
    lengths: Tensor,
) -> Stepper:
    kept = {
        name: encoded[output]
        for name, output in decoding.from_encoder.items()
        if name != state_name
    }
    if decoding.lengths is not None:
        kept[decoding.lengths] = lengths
    pick = CachedRows(list(kept.values()))
    names = [decoding.log_probabilities, decoding.from_step[state_name]]
    if decoding.attention is not None:
        names.append(decoding.attention)

    def step(previous: Tensor, state: Tensor, rows: Tensor) -> Step:
        own = {name: each for name, each in zip(kept, pick(rows), strict=True) if each is not None}
        outputs = _run(session, names, {decoding.previous: previous, state_name: state, **own})
        scores, after, *attention = outputs.values()
        return Step(scores, after, attention[0] if attention else None)

    return step


def _run(
    session: onnxruntime.InferenceSession, names: list[str], inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    outputs = runtime.run(session, names, arrays)
    return {name: torch.from_numpy(array) for name, array in outputs.items()}
