"""A decoder step with its matrix products joined: the form in which export writes it.

`Decoder.step` multiplies once for each term of its equations. `FusedStep` returns the same values
up to rounding, from a table look-up and fewer products:

- The terms of the previous token, in gates and readout, are a table with a row for each token. It
  is computed at export.
- The last layer's state is multiplied once, for its gates and for the query of the attention.
- The context is multiplied once, for gates and readout, and added to the token's row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from weir.export.errors import ExportError
from weir.training.models.attention import AdditiveAttention
from weir.training.models.decoder import CellStack, Decoder, Memory, Parts, Step, lstm
from weir.training.models.masking import real_steps
from weir.training.models.seq2seq import EncoderDecoder

# A table is wider than the embedding that it replaces: 15 MiB more for 5000 words of `translate`.
_MOST_TABLE_BYTES = 64 * 2**20

_FUSED_MODULES = frozenset(
    {
        *(Decoder, CellStack, AdditiveAttention),
        *(nn.Embedding, nn.Linear, nn.Dropout, nn.ModuleList),
    }
)


def can_fuse(network: EncoderDecoder) -> bool:
    """Whether `FusedStep` computes the network's step: no part of it is overridden or replaced."""
    return type(network).step is EncoderDecoder.step and all(
        type(module) in _FUSED_MODULES for module in network.decoder.modules()
    )


class FusedStep(nn.Module):
    """One step of a decoder, with the weights that it has when this is made; see `Decoder.step`.

    G·H is the size of a layer's gates, R that of the readout, A that of the attention's query.
    """

    tokens: Tensor
    of_token: Tensor
    token_bias: Tensor
    of_context: Tensor
    of_hidden: Tensor
    of_state: Tensor
    state_bias: Tensor

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        cells, readout, attention = decoder.cells, decoder.readout, decoder.attention
        last = [each for each in cells.of_state if isinstance(each, nn.Linear)][-1]
        self.cells = cells
        self.energy = None if attention is None else attention.energy
        self.output = decoder.output
        hidden, width = cells.hidden, cells.of_token.out_features
        # The gates r and z of a GRU are computed apart from n.
        self.parts = [2 * hidden, hidden] if cells.cell == "gru" else [width]
        self.token_parts = [*self.parts, readout.out_features]
        queries = [] if attention is None else [attention.of_query.out_features]
        self.state_parts = [*self.parts, *queries]
        with torch.no_grad():
            tokens = decoder.embedding.weight
            sizes = [hidden, cells.of_context.in_features, tokens.shape[1]]
            of_hidden, of_context, of_token = torch.split(readout.weight, sizes, dim=1)
            of_token = torch.cat([cells.of_token.weight, of_token])  # (G·H + R, E)
            token_bias = torch.cat([cells.of_token.bias, readout.bias])  # (G·H + R)
            self.is_table = len(tokens) * len(of_token) * of_token.itemsize <= _MOST_TABLE_BYTES
            if self.is_table:
                tokens = functional.linear(tokens, of_token, token_bias)  # (V, G·H + R)
            of_context = torch.cat([cells.of_context.weight, of_context])  # (G·H + R, W)
            of_state, state_bias = last.weight.detach(), last.bias.detach()
            if attention is not None:
                of_query = attention.of_query.weight
                of_state = torch.cat([of_state, of_query])  # (G·H + A, H)
                state_bias = torch.cat([state_bias, of_query.new_zeros(len(of_query))])
            weights = {
                "tokens": tokens,
                "of_token": of_token,
                "token_bias": token_bias,
                "of_context": of_context.T,
                "of_hidden": of_hidden.T,
                "of_state": of_state,
                "state_bias": state_bias,
            }
        for name, weight in weights.items():
            self.register_buffer(name, weight.detach().clone(memory_format=torch.contiguous_format))

    def forward(self, previous: Tensor, state: Tensor, memory: Memory, lengths: Tensor) -> Step:
        """One step from a state (B, S), after the token `previous` (B,)."""
        cells = self.cells
        parts = [state] if state.shape[1] == cells.hidden else cells.split(state)
        of_state = functional.linear(cells.top(parts), self.of_state, self.state_bias)
        of_last = torch.split(of_state, self.state_parts, dim=1)
        # With attention, the last part is the query.
        context, weights = self._attend(of_last[-1], memory, lengths)
        token = functional.embedding(previous, self.tokens)  # (B, G·H + R), or (B, E)
        if not self.is_table:
            token = functional.linear(token, self.of_token, self.token_bias)  # (B, G·H + R)
        product = torch.addmm(token, context, self.of_context)  # (B, G·H + R)
        *gates, read = torch.split(product, self.token_parts, dim=1)
        after = self._run_cells(gates, of_last, parts)
        read = torch.tanh(torch.addmm(read, cells.top(after), self.of_hidden))  # (B, R)
        return Step(
            torch.log_softmax(self.output(read), dim=1),
            after[0] if len(after) == 1 else torch.cat(after, dim=1),
            weights,
        )

    def _attend(
        self, query: Tensor, memory: Memory, lengths: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Context (B, W), and weights (B, T) if there is attention, of queries (B, A)."""
        if self.energy is None or memory.states is None or memory.keys is None:
            if memory.context is None:
                raise ExportError("memory: expected a context without attention, got none")
            return memory.context, None
        energies = self.energy(torch.tanh(memory.keys + query[:, None])).squeeze(2)  # (B, T)
        real = real_steps(lengths, energies.shape[1])
        weights = torch.softmax(torch.where(real, energies, -torch.inf), dim=1)  # (B, T)
        return torch.bmm(weights[:, None], memory.states).squeeze(1), weights

    def _run_cells(
        self, gates: Sequence[Tensor], of_last: Sequence[Tensor], parts: Parts
    ) -> list[Tensor]:
        """The state after `parts`, see `CellStack.forward`; `of_last` are the last layer's."""
        cells = self.cells
        layers = len(cells.of_state)
        hidden: list[Tensor] = []
        memory: list[Tensor] = []
        for number, of_layer in enumerate(cells.of_state):
            if number:
                gates = torch.split(cells.of_below[number - 1](hidden[-1]), self.parts, dim=1)
            of_state = (
                of_last
                if number == layers - 1
                else torch.split(of_layer(parts[number]), self.parts, dim=1)
            )
            if cells.cell == "gru":
                hidden.append(_gru(gates, of_state, parts[number]))
            else:
                h, c = lstm(gates[0] + of_state[0], parts[layers + number])
                hidden.append(h)
                memory.append(c)
        return hidden + memory


def _gru(gates: Sequence[Tensor], of_state: Sequence[Tensor], h: Tensor) -> Tensor:
    """h (B, H) of both parts of the gates, each (B, 2·H) for r and z, and (B, H) for n."""
    r, z = torch.sigmoid(gates[0] + of_state[0]).chunk(2, dim=1)
    n = torch.tanh(gates[1] + r * of_state[1])
    return n + z * (h - n)
