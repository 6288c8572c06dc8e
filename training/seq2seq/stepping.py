"""One decoding step of some rows of a batch: what a search asks for, and the PyTorch network behind it.

A search drops rows that have ended and repeats rows for their hypotheses. So it names, with each call, the
source row of everything it decodes, and whoever makes the step takes these rows of the encoder's memory.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from weir.training.models.decoder import Memory, Step
from weir.training.models.seq2seq import EncoderDecoder


class Stepper(Protocol):
    """Makes one step: of a PyTorch network, or of an ONNX graph."""

    def __call__(self, previous: Tensor, state: Tensor, rows: Tensor) -> Step:
        """Step from states (N, S) after tokens (N,), each with the memory of the source row in `rows` (N,)."""


class Picked:
    """Rows of tensors by number, kept as long as the same ones are asked for.

    A search hands in the same object of row numbers until they change, so most steps copy nothing.
    """

    def __init__(self, tensors: Sequence[Tensor | None]) -> None:
        self._tensors = tensors
        self._rows: Tensor | None = None
        self._picked: Sequence[Tensor | None] = ()

    def __call__(self, rows: Tensor) -> Sequence[Tensor | None]:
        """These rows of each tensor; None stays None."""
        if rows is not self._rows:
            self._rows = rows
            self._picked = [
                None if tensor is None else tensor.index_select(0, rows) for tensor in self._tensors
            ]
        return self._picked


def steps_of(network: EncoderDecoder, memory: Memory, lengths: Tensor) -> Stepper:
    """The steps of a PyTorch network, which should be in eval mode, over a batch it has encoded.

    Args:
        network: its `step` is called.
        memory: what `encode` gave, of B rows.
        lengths: (B,), of the source.
    """
    pick = Picked([memory.states, memory.keys, memory.context, lengths])

    def step(previous: Tensor, state: Tensor, rows: Tensor) -> Step:
        states, keys, context, picked_lengths = pick(rows)
        own = Memory(states, keys, state, context)
        with torch.inference_mode():
            return network.step(
                previous, state, own, lengths if picked_lengths is None else picked_lengths
            )

    return step
