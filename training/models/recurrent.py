"""Recurrent encoder: layers of RNN, GRU or LSTM whose results are independent of padding.

The cells are nn.RNN, nn.LSTM and nn.GRU; `docs/recurrent.md` has their equations. PyTorch
runs packed sequences, or padded ones where an LSTM is faster with them. torch's exporter cannot
pack: it loses the lengths of an LSTM or GRU and unrolls an RNN. During an export each layer
therefore emits its ONNX operator itself, with the lengths as its input `sequence_lens`.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._python_dispatch import _disable_current_modes

from weir.training.errors import ModelError
from weir.training.models.masking import Encoded, state_at_end, without_padding

Cell = Literal["rnn", "gru", "lstm"]
ONNX_OPERATORS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
ONNX_GATES = {
    # Indices of ONNX's gates in torch's order: z, r, h in r, z, n; i, o, f, c in i, f, g, o.
    "rnn": (0,),
    "gru": (1, 0, 2),
    "lstm": (0, 3, 1, 2),
}
ONNX_VERSION = 14
"""Opset of the operators: the newest up to opset 21, and ONNX Runtime has CUDA kernels for it."""
FORGET_GATE = 1
"""Index of the forget gate of an LSTM in torch's order."""


class Recurrent(nn.Module):
    """Layers of simple recurrent, GRU or LSTM cells, in one or both directions.

    Takes a sequence (B, T, F) of float32 and lengths (B,) of int64, each from 1 to T. Returns
    `Encoded`.

    Initialisation: recurrent weights are orthogonal per gate (Saxe et al., 2014). Biases are 0,
    except 1 for the forget gate of an LSTM (Jozefowicz et al., 2015, section 3.2). Other weights
    are torch's.

    Args:
        inputs: F.
        hidden: size of a state per direction.
        bidirectional: also from end to beginning (Schuster & Paliwal, 1997).
        dropout: between layers, share of states set to 0 in training.
        truncate_steps: truncated back-propagation through time (Williams & Peng, 1990). A sequence
            is split into pieces of this many steps; states pass from piece to piece, gradients do
            not. None: no truncation.
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

    @classmethod
    def from_torch(cls, layers: nn.RNNBase) -> "Recurrent":
        """A copy of the layers of an nn.RNN, nn.LSTM or nn.GRU, for padded rows with lengths.

        Raises:
            ModelError: the layers have no biases, projections, or ReLU instead of tanh.
        """
        cells: dict[str, Cell] = {"RNN_TANH": "rnn", "GRU": "gru", "LSTM": "lstm"}
        cell = cells.get(layers.mode)
        if cell is None or not layers.bias or layers.proj_size:
            raise ModelError(
                f"layers: expected tanh, biases and no projection, got {layers.mode} with "
                f"bias={layers.bias}, proj_size={layers.proj_size}"
            )
        copy = cls(
            cell,
            layers.input_size,
            layers.hidden_size,
            layers=layers.num_layers,
            bidirectional=layers.bidirectional,
            dropout=layers.dropout,
        )
        for number, layer in enumerate(copy.stack()):
            weights = {
                name.replace(f"_l{number}", "_l0"): weight
                for name, weight in layers.state_dict().items()
                if name.removesuffix("_reverse").endswith(f"_l{number}")
            }
            layer.rnn.load_state_dict(weights)
        return copy.train(layers.training)

    def forward(self, sequence: Tensor, lengths: Tensor) -> Encoded:
        """States (B, T, width) and last (B, width) of a sequence (B, T, F) with lengths (B,)."""
        if torch.onnx.is_in_onnx_export():
            return self._exported(sequence, lengths)
        if self.truncate_steps is not None:
            return self._truncated(sequence, lengths, self.truncate_steps)
        if int(lengths.min()) == sequence.shape[1]:
            return self._whole(sequence)
        if self._is_faster_padded(sequence, lengths):
            return self._padded(sequence, lengths)
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
        last = sequence  # a placeholder; the first layer replaces it
        for number, layer in enumerate(self.stack()):
            if number:
                steps = steps._replace(data=self.dropout(steps.data))
            steps, last = layer.packed(steps)
        states, _ = pad_packed_sequence(steps, batch_first=True, total_length=sequence.shape[1])
        return Encoded(states, last)

    def _is_faster_padded(self, sequence: Tensor, lengths: Tensor) -> bool:
        """Whether oneDNN runs the layers: it has an LSTM for CPUs, without packed sequences.

        A training step of 32 rows takes 20 ms instead of 34 (200 units, 10 to 20 steps). Rows that
        are mostly padding are packed.
        """
        is_lstm = next(self.stack()).cell == "lstm" and sequence.device.type == "cpu"
        real = 2 * int(lengths.sum()) >= lengths.numel() * sequence.shape[1]
        return is_lstm and real and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]

    def _padded(self, sequence: Tensor, lengths: Tensor) -> Encoded:
        states, last = without_padding(sequence, lengths), sequence  # last is a placeholder
        for number, layer in enumerate(self.stack()):
            states, last = layer.padded(self.dropout(states) if number else states, lengths)
        return Encoded(states, last)

    def _whole(self, sequence: Tensor) -> Encoded:
        # Without padding, torch's loop over unpacked steps is up to a third faster.
        states, last = sequence.transpose(0, 1), sequence  # (T, B, F); last is a placeholder
        for number, layer in enumerate(self.stack()):
            states, last = layer.whole(self.dropout(states) if number else states)
        return Encoded(states.transpose(0, 1), last)

    def _truncated(self, sequence: Tensor, lengths: Tensor, piece_steps: int) -> Encoded:
        # Not packed: a piece may lie beyond a row's end. Padding comes last and changes no real
        # state.
        states = without_padding(sequence, lengths)
        for number, layer in enumerate(self.stack()):
            states = layer.truncated(self.dropout(states) if number else states, piece_steps)
        return Encoded(without_padding(states, lengths), state_at_end(states, lengths))

    def _exported(self, sequence: Tensor, lengths: Tensor) -> Encoded:
        states, last = sequence.transpose(0, 1), sequence  # (T, B, F); last is a placeholder
        lengths = lengths.to(torch.int32)
        for layer in self.stack():
            states, last = layer.exported(states, lengths)
        return Encoded(states.transpose(0, 1), last)  # (B, T, width), (B, width)


class RecurrentLayer(nn.Module):
    """One layer: a torch module, and the equivalent ONNX operator."""

    def __init__(self, cell: Cell, inputs: int, hidden: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.hidden = hidden
        self.directions = 2 if bidirectional else 1
        kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.rnn: nn.RNNBase = kind(inputs, hidden, bidirectional=bidirectional)
        self._initialise()

    def packed(self, steps: PackedSequence) -> tuple[PackedSequence, Tensor]:
        """The packed states of packed steps, and the last state (B, W) of each row."""
        states, state = self.rnn(steps)
        return states, self._last(state)

    def padded(self, sequence: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, T, W) and last state (B, W) of a sequence (B, T, F) with padding; LSTM only.

        The backward direction reads each row's real steps from the last to the first, so that no
        direction meets padding before it has read the row.
        """
        weights = [each for each in self.rnn._flat_weights if each is not None]  # noqa: SLF001
        zeros = sequence.new_zeros(1, len(sequence), self.hidden)
        found, last = [], []
        for direction in range(self.directions):
            given = _reverse(sequence, lengths) if direction else sequence
            states, *_ = torch.lstm(
                given,
                (zeros, zeros),
                weights[4 * direction : 4 * direction + 4],
                has_biases=True,
                num_layers=1,
                dropout=0.0,
                train=self.training,
                bidirectional=False,
                batch_first=True,
            )
            last.append(state_at_end(states, lengths))
            found.append(_reverse(states, lengths) if direction else states)
        return without_padding(torch.cat(found, dim=2), lengths), torch.cat(last, dim=1)

    def whole(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """States (T, B, W) and last state (B, W) of a sequence (T, B, F) without padding."""
        states, state = self.rnn(sequence)
        return states, self._last(state)

    def _last(self, state: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        last = state[0] if isinstance(state, tuple) else state  # (D, B, H)
        return last.transpose(0, 1).flatten(1)  # (B, W)

    def truncated(self, sequence: Tensor, piece_steps: int) -> Tensor:
        """States (B, T, H) of a sequence (B, T, F); no gradient passes to an earlier piece."""
        pieces, state = [], None
        for piece in torch.split(sequence.transpose(0, 1), piece_steps):  # (piece_steps, B, F)
            states, state = self.rnn(piece, state)
            state = (
                tuple(part.detach() for part in state) if self.cell == "lstm" else state.detach()
            )
            pieces.append(states)
        return torch.cat(pieces).transpose(0, 1)  # (B, T, H)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state, h or h and c of (B, H) each, after one step (B, F).

        An empty state stands for zeros. Only for one direction.
        """
        before = tuple(part[None] for part in state)  # (1, B, H)
        known = None if not before else before if self.cell == "lstm" else before[0]
        _, after = self.rnn(x[None], known)
        parts: tuple[Tensor, ...] = after if self.cell == "lstm" else (after,)
        return tuple(part.squeeze(0) for part in parts)  # (B, H)

    def exported(self, sequence: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """States (T, B, W) and last state (B, W), by one ONNX operator; lengths (B,) are int32."""
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
        return states, self._last(last)

    def _onnx_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """W (D, G·H, F), R (D, G·H, H) and B (D, 2·G·H): inputs of the operator, in its gate order.

        They are computed outside the trace and become constants. Inside it, the reordering would
        add graph nodes, which torch's exporter does not fold. As buffers, they would be stale after
        each change of a weight. torch's list `_flat_weights` holds the real weights, not traced
        ones.
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


def _reverse(sequence: Tensor, lengths: Tensor) -> Tensor:
    """A sequence (B, T, F) with the real steps of each row reversed; padding stays at the end."""
    steps = sequence.shape[1]
    at = (lengths[:, None] - 1 - torch.arange(steps, device=lengths.device)) % steps  # (B, T)
    return sequence.gather(1, at[:, :, None].expand(-1, -1, sequence.shape[2]))


def _check(cell: str, layers: int, truncate_steps: int | None, *, bidirectional: bool) -> None:
    if cell not in ONNX_OPERATORS:
        raise ModelError(f"unknown cell {cell!r}; there are {', '.join(ONNX_OPERATORS)}")
    if layers < 1:
        raise ModelError(f"layers: expected at least 1, got {layers}")
    if truncate_steps is None:
        return
    if truncate_steps < 1:
        raise ModelError(f"truncate_steps: expected at least 1, got {truncate_steps}")
    if bidirectional:
        raise ModelError(
            "truncate_steps: expected a unidirectional network, got a bidirectional one"
        )
