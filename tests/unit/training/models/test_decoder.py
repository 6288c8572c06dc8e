"""The decoder's cells against torch's, and many steps at once against single steps."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from weir.training.errors import ModelError
from weir.training.models.decoder import CellStack, Decoder, DecoderCell, Memory

TOLERANCE = 1e-6
"""Sums of at most 32 float32 products of size 1, in another order."""

every_cell = pytest.mark.parametrize("cell", get_args(DecoderCell), ids=str)
every_depth = pytest.mark.parametrize("layers", [1, 3], ids=["1 layer", "3 layers"])


def randoms(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def in_torch(stack: CellStack, cell: str, layer: int) -> nn.GRUCell | nn.LSTMCell:
    """torch's cell with a layer's weights."""
    own: dict[str, Tensor] = dict(stack.named_parameters())
    if layer:
        weight, bias = (own[f"of_below.{layer - 1}.{kind}"] for kind in ("weight", "bias"))
    else:
        weight = torch.cat([own["of_token.weight"], own["of_context.weight"]], dim=1)
        bias = own["of_token.bias"]
    inputs = weight.shape[1]
    module: nn.GRUCell | nn.LSTMCell = (
        nn.GRUCell(inputs, stack.hidden) if cell == "gru" else nn.LSTMCell(inputs, stack.hidden)
    )
    module.load_state_dict(
        {
            "weight_ih": weight,
            "bias_ih": bias,
            "weight_hh": own[f"of_state.{layer}.weight"],
            "bias_hh": own[f"of_state.{layer}.bias"],
        }
    )
    return module


@every_cell
@every_depth
@torch.no_grad()
def test_a_step_is_torchs(cell: DecoderCell, layers: int) -> None:
    torch.manual_seed(0)
    stack = CellStack(cell, 5, 7, 6, layers=layers, dropout=0.0)
    token, context, state = randoms(4, 5), randoms(4, 7, seed=1), randoms(4, stack.state_size)
    parts = stack.split(state)

    ours = stack(stack.of_token(token), context, parts)

    below = torch.cat([token, context], dim=1)
    for layer in range(layers):
        module = in_torch(stack, cell, layer)
        if isinstance(module, nn.LSTMCell):
            below, memory = module(below, (parts[layer], parts[layers + layer]))
            torch.testing.assert_close(ours[layers + layer], memory, atol=TOLERANCE, rtol=0)
        else:
            below = module(below, parts[layer])
        torch.testing.assert_close(ours[layer], below, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(stack.top(ours), below, atol=TOLERANCE, rtol=0)


@every_cell
@torch.no_grad()
def test_fresh_weights_are_those_of_the_encoder(cell: DecoderCell) -> None:
    torch.manual_seed(0)
    stack = CellStack(cell, 5, 7, 6, layers=2, dropout=0.0)

    gates = 3 if cell == "gru" else 4
    own = dict(stack.named_parameters())
    for layer in range(2):
        for gate in own[f"of_state.{layer}.weight"].chunk(gates):
            torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0)
        assert not own[f"of_state.{layer}.bias"].any()
    for name in ("of_token.bias", "of_below.0.bias"):
        first = [float(gate[0]) for gate in own[name].chunk(gates)]
        assert first == ([0.0] * 3 if cell == "gru" else [0.0, 1.0, 0.0, 0.0])


def test_padding_is_embedded_as_0() -> None:
    decoder = Decoder("gru", words=9, word_size=4, context_size=6, hidden=5, readout_size=4)

    assert (decoder.embedding(torch.tensor([0])) == 0).all()


def test_without_attention_it_needs_a_context() -> None:
    decoder = Decoder("gru", words=9, word_size=4, context_size=6, hidden=5, readout_size=4)
    state, ones = torch.zeros(2, 5), torch.ones(2, dtype=torch.int64)

    with pytest.raises(ModelError, match="expected a context"):
        decoder.step(ones, state, Memory(None, None, state, None), ones)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"cell": "rnn"}, "unknown decoder cell 'rnn'", id="cell"),
        pytest.param({"layers": 0}, "decoder layers: expected at least 1, got 0", id="layers"),
        pytest.param({"is_tied": True}, "expected readout_size 4, as word_size, got 8", id="tied"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {
        "cell": "gru",
        "words": 9,
        "word_size": 4,
        "context_size": 6,
        "hidden": 5,
        "readout_size": 8,
    }

    with pytest.raises(ModelError, match=message):
        Decoder(**{**settings, **changes})  # type: ignore[arg-type]
