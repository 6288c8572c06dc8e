"""The cells as equations against torch's modules: values and gradients."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.recurrent_cells import (
    GRUGates,
    LSTMGates,
    LSTMState,
    gates_of,
    gru_step,
    lstm_step,
    over_time,
    simple_step,
)

BATCH, STEPS, INPUTS, HIDDEN = 3, 6, 4, 5
TOLERANCE = 1e-6


def simple(module: nn.RNNBase, sequence: Tensor) -> Tensor:
    step = functools.partial(simple_step, gate=gates_of(module)[0])
    return torch.stack(over_time(step, sequence, torch.zeros(BATCH, HIDDEN)), dim=1)


def gru(module: nn.RNNBase, sequence: Tensor) -> Tensor:
    step = functools.partial(gru_step, gates=GRUGates(*gates_of(module)))
    return torch.stack(over_time(step, sequence, torch.zeros(BATCH, HIDDEN)), dim=1)


def lstm(module: nn.RNNBase, sequence: Tensor) -> Tensor:
    step = functools.partial(lstm_step, gates=LSTMGates(*gates_of(module)))
    nothing = LSTMState(torch.zeros(BATCH, HIDDEN), torch.zeros(BATCH, HIDDEN))
    states = over_time(step, sequence, nothing)
    return torch.stack([state.hidden for state in states], dim=1)


@pytest.mark.parametrize(
    ("kind", "ours"), [(nn.RNN, simple), (nn.GRU, gru), (nn.LSTM, lstm)], ids=["rnn", "gru", "lstm"]
)
def test_equations_agree_with_torch(
    kind: type[nn.RNNBase], ours: Callable[[nn.RNNBase, Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    module = kind(INPUTS, HIDDEN, batch_first=True)  # type: ignore[arg-type,call-arg]
    sequence = torch.randn(BATCH, STEPS, INPUTS, requires_grad=True)
    weights = [sequence, *module.parameters()]
    expected, _ = module(sequence)
    direction = torch.randn_like(expected)

    states = ours(module, sequence)

    torch.testing.assert_close(states, expected, atol=TOLERANCE, rtol=0)
    gradients = torch.autograd.grad((states * direction).sum(), weights)
    expected_gradients = torch.autograd.grad((expected * direction).sum(), weights)
    for gradient, of_torch in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, of_torch, atol=TOLERANCE, rtol=TOLERANCE)


def test_open_forget_gate_keeps_the_memory() -> None:
    torch.manual_seed(0)
    module = nn.LSTM(INPUTS, HIDDEN)
    gates = LSTMGates(*gates_of(module))
    wide_open = gates.forget._replace(input_bias=torch.full((HIDDEN,), 100.0))
    shut = gates.input._replace(input_bias=torch.full((HIDDEN,), -100.0))
    gates = gates._replace(forget=wide_open, input=shut)
    memory = torch.randn(BATCH, HIDDEN)

    state = LSTMState(torch.zeros(BATCH, HIDDEN), memory)
    for _ in range(50):
        state = lstm_step(torch.randn(BATCH, INPUTS), state, gates)

    torch.testing.assert_close(state.memory, memory)
