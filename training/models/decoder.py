"""The decoder of an encoder-decoder: a single step, and all steps of a sentence for training.

`step` is exported and served. `readouts` runs many steps for training. It computes the embeddings
and their part of the gates for all steps at once, because these need no earlier state.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from weir.training.errors import ModelError
from weir.training.models.attention import AdditiveAttention
from weir.training.models.embeddings import small_embedding
from weir.training.models.masking import real_steps
from weir.training.models.recurrent import FORGET_GATE

DecoderCell = Literal["gru", "lstm"]
GATES = {"gru": 3, "lstm": 4}

Parts = Sequence[Tensor]
"""The parts of a state, (B, H) each: h of every layer from the bottom up, then c of an LSTM."""


class Memory(NamedTuple):
    """The outputs of an encoder that a decoder reads.

    Attributes:
        states: (B, T, W), to attend to; None without attention.
        keys: (B, T, A), of the attention; None without attention.
        state: (B, S), the first state of the decoder.
        context: (B, W), the context of every step; None with attention.
    """

    states: Tensor | None
    keys: Tensor | None
    state: Tensor
    context: Tensor | None


class Step(NamedTuple):
    """The outputs of one decoder step.

    Attributes:
        log_probabilities: (B, V), of the next token.
        state: (B, S), for the next step.
        attention: (B, T), weights; None without attention.
    """

    log_probabilities: Tensor
    state: Tensor
    attention: Tensor | None


class Decoder(nn.Module):
    """Recurrent decoder with attention (Bahdanau et al., 2015) or without (Cho et al., 2014).

    A step attends with the previous state of the last layer, feeds embedding and context to the
    first layer, and predicts the next token from state, context and embedding:

        log-probabilities = log softmax(V tanh(W [state; context; embedding]))

    Deviations: torch's GRU (see `docs/recurrent.md`); tanh in place of maxout.

    Args:
        words: V, the target's vocabulary, padding (0) included.
        word_size: E.
        context_size: W, of the encoder's states.
        hidden: H.
        attention_size: A; None: no attention, the context is the same at every step.
        readout_size: of the layer before the output.
        dropout: on embeddings, between layers and before the output.
        is_tied: the output's weights are the embedding's (Press & Wolf, 2017); needs readout_size =
            E.
    """

    def __init__(
        self,
        cell: DecoderCell,
        *,
        words: int,
        word_size: int,
        context_size: int,
        hidden: int,
        layers: int = 1,
        attention_size: int | None = None,
        readout_size: int,
        dropout: float = 0.0,
        is_tied: bool = False,
    ) -> None:
        super().__init__()
        _check(cell, layers, word_size, readout_size, is_tied=is_tied)
        self.embedding = small_embedding(words, word_size)
        self.attention = (
            None
            if attention_size is None
            else AdditiveAttention(hidden, context_size, attention_size)
        )
        self.cells = CellStack(
            cell, word_size, context_size, hidden, layers=layers, dropout=dropout
        )
        self.readout = nn.Linear(hidden + context_size + word_size, readout_size)
        self.output = nn.Linear(readout_size, words)
        nn.init.zeros_(self.output.bias)
        if is_tied:
            self.output.weight = self.embedding.weight
        self.dropout = nn.Dropout(dropout)

    def step(self, previous: Tensor, state: Tensor, memory: Memory, lengths: Tensor) -> Step:
        """One step from a state (B, S), after the token `previous` (B,)."""
        parts = self.cells.split(state)
        embedded = self.dropout(self.embedding(previous))  # (B, E)
        context, weights = self._look(parts, memory, _real(memory, lengths))
        parts = self.cells(self.cells.of_token(embedded), context, parts)
        logits = self.output(self._read(self.cells.top(parts), context, embedded))  # (B, V)
        return Step(torch.log_softmax(logits, dim=1), torch.cat(list(parts), dim=1), weights)

    def readouts(
        self, previous: Tensor, memory: Memory, lengths: Tensor, forced: Tensor | None = None
    ) -> Tensor:
        """The inputs of the output layer, (B, U, R), for steps after the tokens `previous` (B, U).

        Args:
            previous: (B, U); the first is the begin token.
            lengths: (B,), of the source.
            forced: (B, U) bool, True where a step reads `previous`. Elsewhere it reads a token
                drawn from the prediction of the step before (scheduled sampling, Bengio et al.,
                2015), by torch's global generator. The first step always reads `previous`. None:
                all steps do.
        """
        parts, real = self.cells.split(memory.state), _real(memory, lengths)
        embedded = self.dropout(self.embedding(previous.T))  # (U, B, E)
        of_tokens = self.cells.of_token(embedded)  # (U, B, G·H)
        seen = list(embedded.unbind())  # (B, E) each
        tops: list[Tensor] = []
        contexts: list[Tensor] = []
        for number, given in enumerate(of_tokens.unbind()):
            of_token = given  # (B, G·H)
            if number and forced is not None:
                drawn = self._draw(tops[-1], contexts[-1], seen[number - 1])  # (B,)
                tokens = torch.where(forced[:, number], previous[:, number], drawn)
                seen[number] = self.dropout(self.embedding(tokens))  # (B, E)
                of_token = self.cells.of_token(seen[number])  # (B, G·H)
            context, _ = self._look(parts, memory, real)  # (B, W)
            parts = self.cells(of_token, context, parts)
            tops.append(self.cells.top(parts))
            contexts.append(context)
        embedded = torch.stack(seen, dim=1)  # (B, U, E)
        return self._read(torch.stack(tops, dim=1), torch.stack(contexts, dim=1), embedded)

    def _look(
        self, parts: Parts, memory: Memory, real: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Context (B, W), and weights (B, T) if the decoder attends."""
        if self.attention is None or memory.states is None or memory.keys is None or real is None:
            if memory.context is None:
                raise ModelError("memory: expected a context without attention, got none")
            return memory.context, None
        found = self.attention(self.cells.top(parts), memory.keys, memory.states, real)
        return found.context, found.weights

    def _read(self, top: Tensor, context: Tensor, embedded: Tensor) -> Tensor:
        joined = torch.cat([top, context, embedded], dim=-1)  # (…, H + W + E)
        read: Tensor = self.dropout(torch.tanh(self.readout(joined)))  # (…, R)
        return read

    @torch.no_grad()
    def _draw(self, top: Tensor, context: Tensor, embedded: Tensor) -> Tensor:
        """Draw a token for each row (B,) from the predicted distribution."""
        logits = self.output(self._read(top, context, embedded)).float()  # (B, V)
        return torch.multinomial(torch.softmax(logits, dim=1), 1).squeeze(1)


class CellStack(nn.Module):
    """Layers of GRU or LSTM cells, one step at a time; equations in `docs/recurrent.md`.

    Initialisation: as in `weir.training.models.recurrent.Recurrent`. H is `hidden`.

    Args:
        token_size: E, of a token's embedding.
        context_size: W; the first layer reads embedding and context.
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
        """The state after `parts`, from an embedding's gates (B, G·H) and the context (B, W)."""
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
                h, c = lstm(gates + of_state(parts[number]), parts[layers + number])
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


def _real(memory: Memory, lengths: Tensor) -> Tensor | None:
    return None if memory.states is None else real_steps(lengths, memory.states.shape[1])  # (B, T)


def _check(cell: str, layers: int, word_size: int, readout_size: int, *, is_tied: bool) -> None:
    if cell not in GATES:
        raise ModelError(f"unknown decoder cell {cell!r}; there are {', '.join(GATES)}")
    if layers < 1:
        raise ModelError(f"decoder layers: expected at least 1, got {layers}")
    if is_tied and readout_size != word_size:
        raise ModelError(
            f"tied weights: expected readout_size {word_size}, as word_size, got {readout_size}"
        )


def _gru(gates: Tensor, of_state: Tensor, h: Tensor) -> Tensor:
    """h (B, H) of both parts of the gates (B, 3·H), in torch's order r, z, n."""
    size = h.shape[1]
    r, z = torch.sigmoid(gates[:, : 2 * size] + of_state[:, : 2 * size]).chunk(2, dim=1)
    n = torch.tanh(gates[:, 2 * size :] + r * of_state[:, 2 * size :])
    return n + z * (h - n)


def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c (B, H) of the gates (B, 4·H), in torch's order i, f, g, o."""
    i, f, g, o = gates.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c
