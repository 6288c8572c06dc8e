"""The recurrent encoder against torch's packed layers, and truncation."""

from typing import get_args
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from weir.training.errors import ModelError
from weir.training.models.masking import Encoded
from weir.training.models.recurrent import Cell, Recurrent, RecurrentLayer

CELLS = list(get_args(Cell))
TORCH = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
LENGTHS = torch.tensor([7, 1, 4])
TOLERANCE = 1e-6
"""Sums of at most 32 float32 products of size 1, in another order."""

every_cell = pytest.mark.parametrize("cell", CELLS, ids=str)
every_direction = pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
every_depth = pytest.mark.parametrize("layers", [1, 2], ids=["1 layer", "2 layers"])


def batch(*, seed: int = 0, steps: int = 7) -> Tensor:
    return torch.randn(len(LENGTHS), steps, 5, generator=torch.Generator().manual_seed(seed))


def made(cell: Cell, layers: int = 1, *, bidirectional: bool = False) -> Recurrent:
    torch.manual_seed(1)
    return Recurrent(cell, 5, 6, layers=layers, bidirectional=bidirectional).eval()


def in_torch(network: Recurrent, cell: str, sequence: Tensor) -> Encoded:
    """The same by one torch module of several layers with the same weights."""
    layers = list(network.stack())
    module = TORCH[cell](
        5, 6, num_layers=len(layers), bidirectional=network.width == 12, batch_first=True
    )
    module.load_state_dict(
        {
            name.replace("_l0", f"_l{number}"): weight
            for number, layer in enumerate(layers)
            for name, weight in layer.rnn.state_dict().items()
        }
    )
    packed = pack_padded_sequence(sequence, LENGTHS, batch_first=True, enforce_sorted=False)
    states, state = module(packed)
    hidden = state[0] if cell == "lstm" else state
    last = torch.cat(list(hidden[-(network.width // 6) :]), dim=1)
    return Encoded(pad_packed_sequence(states, batch_first=True)[0], last)


@every_cell
@every_direction
@every_depth
def test_agrees_with_torchs_stack(cell: Cell, layers: int, *, bidirectional: bool) -> None:
    network = made(cell, layers, bidirectional=bidirectional)
    expected = in_torch(network, cell, batch())

    encoded = network(batch(), LENGTHS)

    torch.testing.assert_close(encoded.states, expected.states, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(encoded.last, expected.last, atol=TOLERANCE, rtol=0)
    assert encoded.states.shape == (3, 7, network.width)


@every_cell
@every_direction
@every_depth
def test_padding_changes_nothing(cell: Cell, layers: int, *, bidirectional: bool) -> None:
    network = made(cell, layers, bidirectional=bidirectional)
    garbage = torch.cat([batch(), torch.full((3, 4, 5), torch.nan)], dim=1)

    encoded = network(garbage, LENGTHS)

    for row, length in enumerate(LENGTHS.tolist()):
        alone = network(batch()[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(
            encoded.states[row, :length], alone.states[0], atol=TOLERANCE, rtol=0
        )
        torch.testing.assert_close(encoded.last[row], alone.last[0], atol=TOLERANCE, rtol=0)
        assert not encoded.states[row, length:].any()


@every_direction
@every_depth
def test_gradients_of_padded_rows_are_those_of_packed_rows(
    layers: int, *, bidirectional: bool
) -> None:
    ours, theirs = (made("lstm", layers, bidirectional=bidirectional) for _ in range(2))
    sequence, same = batch().requires_grad_(), batch().requires_grad_()

    ours(sequence, LENGTHS).states.square().sum().backward()
    in_torch_gradients(theirs, same)

    torch.testing.assert_close(sequence.grad, same.grad, atol=1e-6, rtol=1e-5)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-5)


def in_torch_gradients(network: Recurrent, sequence: Tensor) -> None:
    """Back-propagate through torch's packed layers, one by one."""
    steps = pack_padded_sequence(sequence, LENGTHS, batch_first=True, enforce_sorted=False)
    for layer in network.stack():
        steps, _ = layer.rnn(steps)
    states, _ = pad_packed_sequence(steps, batch_first=True)
    states.square().sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("cell", CELLS)
def test_rows_that_are_mostly_padding_are_packed(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = made(cell)
    layer = next(network.stack())
    with monkeypatch.context() as patched:
        patched.delattr(RecurrentLayer, "padded")
        network(batch(), torch.tensor([7, 1, 1]))
    padded = Mock(wraps=layer.padded)
    monkeypatch.setattr(layer, "padded", padded)

    network(batch(), LENGTHS)

    assert padded.call_count == (cell == "lstm")


@every_cell
@every_depth
@pytest.mark.parametrize("piece_steps", [1, 3, 7, 10], ids=str)
def test_truncation_changes_no_value(cell: Cell, layers: int, piece_steps: int) -> None:
    whole = made(cell, layers)
    truncated = Recurrent(cell, 5, 6, layers=layers, truncate_steps=piece_steps).eval()
    truncated.load_state_dict(whole.state_dict())

    encoded, expected = truncated(batch(), LENGTHS), whole(batch(), LENGTHS)

    torch.testing.assert_close(encoded.states, expected.states, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(encoded.last, expected.last, atol=TOLERANCE, rtol=0)


@every_cell
@every_depth
def test_no_gradient_goes_back_beyond_a_piece(cell: Cell, layers: int) -> None:
    network = Recurrent(cell, 5, 6, layers=layers, truncate_steps=3)
    sequence = batch().requires_grad_()

    network(sequence, LENGTHS).last.square().sum().backward()

    assert sequence.grad is not None
    reached = sequence.grad.abs().sum(dim=2) > 0
    # Pieces are steps 0 to 2, 3 to 5 and 6; the rows end in the third, the first and the second.
    assert reached.int().tolist() == [
        [0, 0, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
    ]


@every_cell
def test_gradient_within_a_piece_is_the_whole_one(cell: Cell) -> None:
    whole = made(cell)
    truncated = Recurrent(cell, 5, 6, truncate_steps=7)
    truncated.load_state_dict(whole.state_dict())

    for network in (whole, truncated):
        network(batch(), LENGTHS).states.square().sum().backward()

    for ours, theirs in zip(truncated.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_dropout_is_between_layers_only() -> None:
    torch.manual_seed(0)
    single = Recurrent("lstm", 5, 6, dropout=0.5)
    double = Recurrent("lstm", 5, 6, layers=2, dropout=0.5)

    torch.testing.assert_close(single(batch(), LENGTHS), single(batch(), LENGTHS))
    assert not torch.equal(double(batch(), LENGTHS).last, double(batch(), LENGTHS).last)
    assert made("lstm", 2)(batch(), LENGTHS).states[0].all()


@every_cell
def test_fresh_recurrent_weights_are_orthogonal_and_forget_gates_open(cell: Cell) -> None:
    rnn = next(made(cell).stack()).rnn
    _, recurrent, input_bias, recurrent_bias = rnn.all_weights[0]

    for gate in torch.split(recurrent, 6):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0)
    opened = [0.0, 1.0, 0.0, 0.0] if cell == "lstm" else [0.0] * (len(input_bias) // 6)
    assert (input_bias + recurrent_bias).reshape(-1, 6).mean(dim=1).tolist() == opened


def test_state_is_torchs_and_nothing_else() -> None:
    assert list(made("gru").state_dict()) == [
        f"layers.0.rnn.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "elman"}, "unknown cell 'elman'; there are rnn, gru, lstm"),
        ({"layers": 0}, "layers: expected at least 1, got 0"),
        ({"truncate_steps": 0}, "truncate_steps: expected at least 1, got 0"),
        ({"truncate_steps": 3, "bidirectional": True}, "expected a unidirectional network"),
    ],
    ids=["cell", "layers", "steps", "directions"],
)
def test_invalid_settings_are_refused(options: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"cell": "lstm", "inputs": 5, "hidden": 6, **options}
    with pytest.raises(ModelError, match=message):
        Recurrent(**arguments)  # type: ignore[arg-type]


@every_cell
@every_direction
@every_depth
def test_copy_of_torchs_layers_computes_what_they_compute_packed(
    cell: Cell, layers: int, *, bidirectional: bool
) -> None:
    torch.manual_seed(2)
    module = TORCH[cell](5, 6, num_layers=layers, bidirectional=bidirectional, batch_first=True)
    packed = pack_padded_sequence(batch(), LENGTHS, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(module(packed)[0], batch_first=True)

    copy = Recurrent.from_torch(module)

    torch.testing.assert_close(
        copy(batch(), LENGTHS).states, expected, atol=TOLERANCE, rtol=TOLERANCE
    )
    assert copy.training is module.training


@pytest.mark.parametrize(
    "module",
    [nn.RNN(5, 6, nonlinearity="relu"), nn.GRU(5, 6, bias=False), nn.LSTM(5, 6, proj_size=3)],
    ids=["relu", "no bias", "projection"],
)
def test_layers_that_have_no_copy_are_refused(module: nn.RNNBase) -> None:
    with pytest.raises(ModelError, match="layers: expected tanh, biases and no projection, got "):
        Recurrent.from_torch(module)
