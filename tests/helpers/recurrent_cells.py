"""Reference equations of the three recurrent cells, gate by gate and step by step.

The networks use torch's modules (`weir.training.models.recurrent`), which compute the same faster;
tests compare the two. Letters: x the input of a step, h the hidden state, c the memory of an LSTM.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn


class Gate(NamedTuple):
    """The weights of one gate: two matrices and two biases, as torch stores them.

    Attributes:
        inputs: (H, F), for x.
        recurrent: (H, H), for h.
        input_bias: (H,), added to the product with x.
        recurrent_bias: (H,), added to the product with h.
    """

    inputs: Tensor
    recurrent: Tensor
    input_bias: Tensor
    recurrent_bias: Tensor

    def of_input(self, x: Tensor) -> Tensor:
        """W x + b: (B, F) to (B, H)."""
        return x @ self.inputs.T + self.input_bias

    def of_state(self, h: Tensor) -> Tensor:
        """R h + d: (B, H) to (B, H)."""
        return h @ self.recurrent.T + self.recurrent_bias


class LSTMGates(NamedTuple):
    """The gates of an LSTM, in torch's order."""

    input: Gate
    forget: Gate
    candidate: Gate
    output: Gate


class LSTMState(NamedTuple):
    """The state of an LSTM: hidden state and memory, (B, H) each."""

    hidden: Tensor
    memory: Tensor


class GRUGates(NamedTuple):
    """The gates of a GRU, in torch's order."""

    reset: Gate
    update: Gate
    candidate: Gate


State = TypeVar("State")


def simple_step(x: Tensor, h: Tensor, gate: Gate) -> Tensor:
    """One step of a simple recurrent network (Elman, 1990): (B, F) and (B, H) to (B, H).

    Deviation: the hyperbolic tangent in place of the logistic function, as in torch.
    """
    return torch.tanh(gate.of_input(x) + gate.of_state(h))


def lstm_step(x: Tensor, state: LSTMState, gates: LSTMGates) -> LSTMState:
    """One step of an LSTM: (B, F) and a state to the next state.

    Hochreiter & Schmidhuber, 1997; the forget gate is that of Gers et al., 2000.

    Deviations: one cell a block, the hyperbolic tangent for both squashing functions, as in torch.
    """
    h, c = state
    i = torch.sigmoid(gates.input.of_input(x) + gates.input.of_state(h))
    f = torch.sigmoid(gates.forget.of_input(x) + gates.forget.of_state(h))
    g = torch.tanh(gates.candidate.of_input(x) + gates.candidate.of_state(h))
    o = torch.sigmoid(gates.output.of_input(x) + gates.output.of_state(h))
    c = f * c + i * g
    return LSTMState(o * torch.tanh(c), c)


def gru_step(x: Tensor, h: Tensor, gates: GRUGates) -> Tensor:
    """One step of a GRU (Cho et al., 2014): (B, F) and (B, H) to (B, H).

    Deviation, as in torch: the reset gate acts on R h + d, after the product; in the paper it acts
    on h, before the product. torch's form computes all products at once.
    """
    r = torch.sigmoid(gates.reset.of_input(x) + gates.reset.of_state(h))
    z = torch.sigmoid(gates.update.of_input(x) + gates.update.of_state(h))
    n = torch.tanh(gates.candidate.of_input(x) + r * gates.candidate.of_state(h))
    return (1 - z) * n + z * h


def over_time(
    step: Callable[[Tensor, State], State], sequence: Tensor, state: State
) -> list[State]:
    """The T states after each step of a sequence (B, T, F), from an initial state.

    The same weights serve every step: a recurrent network shares them over time.
    """
    states = []
    for x in sequence.unbind(dim=1):  # (B, F)
        state = step(x, state)
        states.append(state)
    return states


def gates_of(rnn: nn.RNNBase) -> list[Gate]:
    """The gates of one layer in one direction of a torch module, in torch's order.

    They are views, so gradients reach the module's weights.
    """
    gates = zip(
        *(torch.split(weight, rnn.hidden_size) for weight in rnn.all_weights[0]), strict=True
    )
    return [Gate(*parts) for parts in gates]
