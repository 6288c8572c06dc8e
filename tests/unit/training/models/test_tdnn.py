"""The TDNN against plain convolutions, and its receptive field."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from weir.training.errors import ModelError
from weir.training.models.tdnn import TDNN

LENGTHS = torch.tensor([20, 1, 9])
TOLERANCE = 1e-6


def made() -> TDNN:
    torch.manual_seed(0)
    return TDNN(5, 6).eval()


def test_full_rows_agree_with_plain_convolutions() -> None:
    network, sequence = made(), torch.randn(2, 20, 5)
    expected = sequence.transpose(1, 2)
    for dilation, layer in zip((1, 2, 4), network.layers, strict=True):
        assert isinstance(layer, nn.Conv1d)
        output = functional.relu(
            functional.conv1d(
                expected, layer.weight, layer.bias, padding=dilation, dilation=dilation
            )
        )
        expected = output if dilation == 1 else expected + output

    encoded = network(sequence, torch.tensor([20, 20]))

    torch.testing.assert_close(encoded.states, expected.transpose(1, 2))
    torch.testing.assert_close(encoded.last, expected[:, :, -1])


def test_padding_changes_nothing() -> None:
    network, sequence = made(), torch.randn(3, 20, 5)
    garbage = torch.cat([sequence, torch.full((3, 4, 5), torch.nan)], dim=1)

    encoded = network(garbage, LENGTHS)

    for row, length in enumerate(LENGTHS.tolist()):
        alone = network(sequence[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(
            encoded.states[row, :length], alone.states[0], atol=TOLERANCE, rtol=0
        )
        torch.testing.assert_close(encoded.last[row], alone.last[0], atol=TOLERANCE, rtol=0)
        assert not encoded.states[row, length:].any()


def test_state_sees_seven_steps_to_each_side() -> None:
    torch.manual_seed(0)
    network = TDNN(5, 64)  # wide, so that some path of ReLUs is open to every step
    sequence = torch.randn(1, 31, 5, requires_grad=True)

    states = network(sequence, torch.tensor([31])).states
    (gradient,) = torch.autograd.grad(states[0, 15].square().sum(), sequence)

    assert torch.nonzero(gradient[0].abs().sum(dim=1)).flatten().tolist() == list(range(8, 23))


@pytest.mark.parametrize(("kernel", "dilations"), [(2, (1,)), (3, ())], ids=["kernel", "layers"])
def test_invalid_settings_are_refused(kernel: int, dilations: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="odd kernel and at least one dilation"):
        TDNN(5, 6, kernel=kernel, dilations=dilations)
