"""Sequence networks built from plain numbers."""

import pytest
import torch
from torch import nn

from weir.training.errors import ModelError
from weir.training.models.recurrent import Recurrent
from weir.training.models.sequences import build_encoder, build_text_network
from weir.training.models.tdnn import TDNN
from weir.training.weight_sharing import free_parameters


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_recurrent_encoder_has_torchs_number_of_weights(kind: str) -> None:
    module = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[kind]

    encoder = build_encoder(kind, 5, 6, layers=2, bidirectional=True)  # type: ignore[arg-type]

    assert isinstance(encoder, Recurrent) and encoder.width == 12
    expected = module(5, 6, num_layers=2, bidirectional=True)
    assert free_parameters(encoder) == free_parameters(expected)


def test_delays_of_a_tdnn_double() -> None:
    encoder = build_encoder("tdnn", 5, 6, layers=4)

    assert isinstance(encoder, TDNN) and encoder.width == 6
    assert [layer.dilation for layer in encoder.layers] == [(1,), (2,), (4,), (8,)]


def test_same_seed_gives_the_same_network() -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(
            build_text_network("lstm", words=9, classes=2, pool=None, letters={"characters": 5})
        )

    torch.testing.assert_close(dict(made[0].state_dict()), dict(made[1].state_dict()))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("qrnn", {}, "unknown encoder 'qrnn'; there are rnn, gru, lstm, tdnn"),
        ("tdnn", {"truncate_steps": 5}, "no steps to truncate"),
        ("gru", {"truncate_steps": 5, "bidirectional": True}, "expected a unidirectional network"),
    ],
    ids=["kind", "tdnn", "directions"],
)
def test_invalid_settings_are_refused(kind: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_encoder(kind, 5, 6, **options)  # type: ignore[arg-type]
