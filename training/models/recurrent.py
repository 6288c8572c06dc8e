"""A stack of recurrent layers whose answers padding cannot change, in PyTorch and in the exported graph.

The cells are nn.RNN, nn.LSTM and nn.GRU; `weir.training.models.cells` writes them out. PyTorch runs packed
sequences. torch's exporter cannot: it loses the lengths of an LSTM or GRU and unrolls an RNN. So during an
export each layer states its ONNX operator itself, with the lengths as its input `sequence_lens`.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._python_dispatch import _disable_current_modes

from weir.training.errors import ModelError
from weir.training.models.masking import Encoded, state_at_end, without_padding

Cell = Literal["rnn", "gru", "lstm"]
ONNX_OPERATORS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
ONNX_GATES = {
    # Places of ONNX's gates among torch's: z, r, h of r, z, n; i, o, f, c of i, f, g, o.
    "rnn": (0,),
    "gru": (1, 0, 2),
    "lstm": (0, 3, 1, 2),
}
ONNX_VERSION = 14
"""The opset of the operators: up to 21 it stays the newest, and ONNX Runtime has CUDA kernels for it."""
FORGET_GATE = 1
"""Its place among an LSTM's gates in torch's order."""


class LayerOutput(NamedTuple):
    """What one layer hands on during an export, time-major: states (T, B, W) and last (B, W)."""

    states: Tensor
    last: Tensor


class Recurrent(nn.Module):
    """Layers of simple recurrent, GRU or LSTM cells, in one or both directions.

    Takes a sequence (B, T, F) of float32 and lengths (B,) of int64, each from 1 to T. Returns `Encoded`.

    Initialisation: recurrent weights are orthogonal, each gate's on its own (Saxe et al., 2014); biases are 0,
    an LSTM's forget gate 1 (Jozefowicz et al., 2015, section 3.2); the other weights are torch's.

    Args:
        cell: which.
        inputs: F.
        hidden: the size of a state in each direction.
        layers: how many, one above the other.
        bidirectional: also from the end to the beginning (Schuster & Paliwal, 1997).
        dropout: between layers, the share of states set to 0 in training.
        truncate_steps: learn by truncated back-propagation through time (Williams & Peng, 1990). A sequence
            is cut into pieces of so many steps; states go from piece to piece, gradients do not. None: whole.

    Raises:
        ModelError: no such cell, or truncation in both directions.
    """

    def __init__(
        self,
        cell: Cell,
        inputs: int,
        hidden: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        truncate_steps: int | None = None,
    ) -> None:
        super().__init__()
        _check(cell, layers, truncate_steps, bidirectional=bidirectional)
        self.width = (2 if bidirectional else 1) * hidden
        self.truncate_steps = truncate_steps
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            RecurrentLayer(
                cell, self.width if layer else inputs, hidden, bidirectional=bidirectional
            )
            for layer in range(layers)
        )

    def forward(self, sequence: Tensor, lengths: Tensor) -> Encoded:
        """States (B, T, width) and last (B, width) of a sequence (B, T, F) with lengths (B,)."""
        if torch.onnx.is_in_onnx_export():
            return self._stated(sequence, lengths)
        if self.truncate_steps is not None:
            return self._truncated(sequence, lengths, self.truncate_steps)
        if int(lengths.min()) == sequence.shape[1]:
            return self._whole(sequence)
        return self._packed(sequence, lengths)

    def stack(self) -> Iterator["RecurrentLayer"]:
        """The layers from the bottom up."""
        for layer in self.layers:
            if isinstance(layer, RecurrentLayer):
                yield layer

    def _packed(self, sequence: Tensor, lengths: Tensor) -> Encoded:
        steps = pack_padded_sequence(
            sequence, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        last = sequence  # of no layer; the first replaces it
        for number, layer in enumerate(self.stack()):
            if number:
                steps = steps._replace(data=self.dropout(steps.data))
            steps, last = layer.packed(steps)
        states, _ = pad_packed_sequence(steps, batch_first=True, total_length=sequence.shape[1])
        return Encoded(states, last)

    def _whole(self, sequence: Tensor) -> Encoded:
        # Without padding there is nothing to pack, and torch's loop over steps is up to a third faster.
        states, last = sequence.transpose(0, 1), sequence  # (T, B, F); last of no layer
        for number, layer in enumerate(self.stack()):
            states, last = layer.whole(self.dropout(states) if number else states)
        return Encoded(states.transpose(0, 1), last)

    def _truncated(self, sequence: Tensor, lengths: Tensor, piece_steps: int) -> Encoded:
        # Not packed: a piece may lie beyond a row's end. Padding comes last, so it changes no real state.
        states = without_padding(sequence, lengths)
        for number, layer in enumerate(self.stack()):
            states = layer.truncated(self.dropout(states) if number else states, piece_steps)
        return Encoded(without_padding(states, lengths), state_at_end(states, lengths))

    def _stated(self, sequence: Tensor, lengths: Tensor) -> Encoded:
        output = LayerOutput(sequence.transpose(0, 1), last=sequence)  # (T, B, F), of no layer
        lengths = lengths.to(torch.int32)
        for layer in self.stack():
            output = layer.stated(output.states, lengths)
        return Encoded(output.states.transpose(0, 1), output.last)  # (B, T, width), (B, width)


class RecurrentLayer(nn.Module):
    """One layer: a torch module, and the ONNX operator that does the same."""

    def __init__(self, cell: Cell, inputs: int, hidden: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.hidden = hidden
        self.directions = 2 if bidirectional else 1
        kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.rnn: nn.RNNBase = kind(inputs, hidden, bidirectional=bidirectional)
        self._initialise()

    def packed(self, steps: PackedSequence) -> tuple[PackedSequence, Tensor]:
        """The states of packed steps, packed, and the last one (B, W) of each row."""
        states, state = self.rnn(steps)
        return states, self._last(state)

    def whole(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """States (T, B, W) and the last one (B, W) of a sequence (T, B, F) whose rows are all T long."""
        states, state = self.rnn(sequence)
        return states, self._last(state)

    def _last(self, state: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        last = state[0] if isinstance(state, tuple) else state  # (D, B, H)
        return last.transpose(0, 1).flatten(1)  # (B, W)

    def truncated(self, sequence: Tensor, piece_steps: int) -> Tensor:
        """States (B, T, H) of a sequence (B, T, F); no gradient goes from one piece to the one before."""
        pieces, state = [], None
        for piece in torch.split(sequence.transpose(0, 1), piece_steps):  # (piece_steps, B, F)
            states, state = self.rnn(piece, state)
            state = (
                tuple(part.detach() for part in state) if self.cell == "lstm" else state.detach()
            )
            pieces.append(states)
        return torch.cat(pieces).transpose(0, 1)  # (B, T, H)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state, h or h and c of (B, H) each, of one step (B, F); an empty state is 0.

        Only for one direction.
        """
        before = tuple(part[None] for part in state)  # (1, B, H)
        known = None if not before else before if self.cell == "lstm" else before[0]
        _, after = self.rnn(x[None], known)
        parts: tuple[Tensor, ...] = after if self.cell == "lstm" else (after,)
        return tuple(part.squeeze(0) for part in parts)  # (B, H)

    def stated(self, sequence: Tensor, lengths: Tensor) -> LayerOutput:
        """The layer as one ONNX operator, for a sequence (T, B, F) and int32 lengths (B,)."""
        steps, rows, _ = sequence.shape
        shapes = [(steps, self.directions, rows, self.hidden), (self.directions, rows, self.hidden)]
        if self.cell == "lstm":
            shapes.append(shapes[1])
        states, last, *_ = torch.onnx.ops.symbolic_multi_out(
            ONNX_OPERATORS[self.cell],
            (sequence, *self._onnx_weights(), lengths),
            {
                "hidden_size": self.hidden,
                "direction": "bidirectional" if self.directions == 2 else "forward",
                # torch's reset gate acts after the product; ONNX's by default before.
                **({"linear_before_reset": 1} if self.cell == "gru" else {}),
            },
            dtypes=[sequence.dtype] * len(shapes),
            shapes=shapes,
            version=ONNX_VERSION,
        )
        states = states.transpose(1, 2).flatten(2) if self.directions == 2 else states.squeeze(1)
        return LayerOutput(states, last.transpose(0, 1).flatten(1))  # (T, B, W), (B, W)

    def _onnx_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """W (D, G·H, F), R (D, G·H, H) and B (D, 2·G·H): the operator's inputs, with its order of gates.

        Computed outside the trace, so that they become constants: traced, the reordering would be nodes of
        the graph, which torch's exporter does not fold. Kept as buffers, they would be stale whenever a
        weight changes. torch's list `_flat_weights` holds the real weights, not the trace's stand-ins.
        """
        with _disable_current_modes(), torch.no_grad():
            weights = self.rnn._flat_weights  # noqa: SLF001
            ordered = [self._in_onnx_order(weight) for weight in weights if weight is not None]
            # For each direction: input weights, recurrent weights, and the biases of both.
            biases = [torch.cat(pair) for pair in zip(ordered[2::4], ordered[3::4], strict=True)]
            return torch.stack(ordered[0::4]), torch.stack(ordered[1::4]), torch.stack(biases)

    def _in_onnx_order(self, weight: Tensor) -> Tensor:
        gates = weight.chunk(len(ONNX_GATES[self.cell]))
        return torch.cat([gates[place] for place in ONNX_GATES[self.cell]])

    @torch.no_grad()
    def _initialise(self) -> None:
        for name, weight in self.rnn.named_parameters():
            gates = weight.chunk(len(ONNX_GATES[self.cell]))
            if name.startswith("weight_hh"):
                for gate in gates:
                    nn.init.orthogonal_(gate)
            elif name.startswith("bias"):
                nn.init.zeros_(weight)
                if self.cell == "lstm" and name.startswith("bias_ih"):
                    nn.init.ones_(gates[FORGET_GATE])


def _check(cell: str, layers: int, truncate_steps: int | None, *, bidirectional: bool) -> None:
    if cell not in ONNX_OPERATORS:
        raise ModelError(f"unknown cell {cell!r}; there are {', '.join(ONNX_OPERATORS)}")
    if layers < 1:
        raise ModelError(f"expected at least 1 layer, got {layers}")
    if truncate_steps is None:
        return
    if truncate_steps < 1:
        raise ModelError(f"expected to truncate after at least 1 step, got {truncate_steps}")
    if bidirectional:
        raise ModelError(
            "truncated back-propagation runs forward only, got a bidirectional network"
        )
