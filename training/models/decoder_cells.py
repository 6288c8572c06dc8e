"""Recurrent cells of a decoder, one step at a time; the token's part is computed beforehand."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from weir.training.models.recurrent import FORGET_GATE

DecoderCell = Literal["gru", "lstm"]
GATES = {"gru": 3, "lstm": 4}

Parts = Sequence[Tensor]
"""The parts of a state, (B, H) each: h of every layer from the bottom up, then c of an LSTM."""


class CellStack(nn.Module):
    """Layers of GRU or LSTM cells, one step at a time; equations in `weir.training.models.cells`.

    Initialisation: as in `weir.training.models.recurrent.Recurrent`.

    Args:
        cell: of all layers.
        token_size: E, of a token's embedding.
        context_size: W; the first layer reads embedding and context.
        hidden: H.
        layers: number of layers.
        dropout: between layers.
    """

    def __init__(
        self,
        cell: DecoderCell,
        token_size: int,
        context_size: int,
        hidden: int,
        *,
        layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.cell: DecoderCell = cell
        self.hidden = hidden
        width = GATES[cell] * hidden
        self.of_token = nn.Linear(token_size, width)
        self.of_context = nn.Linear(context_size, width, bias=False)
        self.of_below = nn.ModuleList(nn.Linear(hidden, width) for _ in range(layers - 1))
        self.of_state = nn.ModuleList(nn.Linear(hidden, width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.state_size = layers * hidden * (2 if cell == "lstm" else 1)
        self._initialise()

    def forward(self, of_token: Tensor, context: Tensor, parts: Parts) -> list[Tensor]:
        """The next state.

        Args:
            of_token: (B, G·H), the embedding's part of the first layer's gates.
            context: (B, W).
            parts: the state before.
        """
        layers = len(self.of_state)
        hidden: list[Tensor] = []
        memory: list[Tensor] = []
        gates = of_token + self.of_context(context)  # (B, G·H)
        for number, of_state in enumerate(self.of_state):
            if number:
                gates = self.of_below[number - 1](self.dropout(hidden[-1]))  # (B, G·H)
            if self.cell == "gru":
                hidden.append(_gru(gates, of_state(parts[number]), parts[number]))
            else:
                h, c = _lstm(gates + of_state(parts[number]), parts[layers + number])
                hidden.append(h)
                memory.append(c)
        return hidden + memory

    def top(self, parts: Parts) -> Tensor:
        """(B, H), the h of the last layer."""
        return parts[len(self.of_state) - 1]

    def split(self, state: Tensor) -> Parts:
        """The parts of a state (B, S)."""
        return torch.split(state, self.hidden, dim=1)

    @torch.no_grad()
    def _initialise(self) -> None:
        bound = self.hidden**-0.5
        for name, weight in self.named_parameters():
            gates = weight.chunk(GATES[self.cell])
            if name.endswith("weight") and not name.startswith("of_state"):
                nn.init.uniform_(weight, -bound, bound)
            elif name.endswith("weight"):
                for gate in gates:
                    nn.init.orthogonal_(gate)
            else:
                nn.init.zeros_(weight)
                if self.cell == "lstm" and not name.startswith("of_state"):
                    nn.init.ones_(gates[FORGET_GATE])


def _gru(gates: Tensor, of_state: Tensor, h: Tensor) -> Tensor:
    """h (B, H) of both parts of the gates (B, 3·H), in torch's order r, z, n."""
    size = h.shape[1]
    r, z = torch.sigmoid(gates[:, : 2 * size] + of_state[:, : 2 * size]).chunk(2, dim=1)
    n = torch.tanh(gates[:, 2 * size :] + r * of_state[:, 2 * size :])
    return n + z * (h - n)


def _lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c (B, H) of the gates (B, 4·H), in torch's order i, f, g, o."""
    i, f, g, o = gates.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c
