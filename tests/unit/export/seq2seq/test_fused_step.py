"""The fused decoder step against the network's own."""

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.encoder_decoders import TARGET, network, sources
from weir.export.seq2seq import fused_step
from weir.export.seq2seq.fused_step import FusedStep, can_fuse
from weir.export.seq2seq.graphs import AttentionDecoderGraph
from weir.training.models.decoder import Memory, Step
from weir.training.models.seq2seq import EncoderDecoder

ROUNDING = 5e-6
"""A product computed in two parts, in float32, and a softmax."""

FORMS: dict[str, dict[str, object]] = {
    "gru": {},
    "deep gru": {"decoder_layers": 3},
    "lstm": {"cell": "lstm"},
    "deep lstm": {"cell": "lstm", "decoder_layers": 2},
    "no attention": {"attends": False},
    "tied": {"is_tied": True},
}


@pytest.mark.parametrize("most_bytes", [2**20, 0], ids=["table", "embedding"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@torch.no_grad()
def test_steps_are_the_networks(
    form: dict[str, object], most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(**form)
    monkeypatch.setattr(fused_step, "_MOST_TABLE_BYTES", most_bytes)
    fused = FusedStep(model.decoder)
    tokens, lengths = sources()
    memory = model.encode(tokens, lengths)
    previous, state = torch.full_like(lengths, 2), memory.state

    for number in range(4):
        expected = model.step(previous, state, memory, lengths)
        actual = fused(previous, state, memory, lengths)
        torch.testing.assert_close(actual, expected, atol=ROUNDING, rtol=0.0)
        previous, state = (previous + 3 * number) % len(TARGET), expected.state


class Doubled(nn.Linear):
    """A layer of the user's own."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return 2.0 * super().forward(input)


class Stepping(EncoderDecoder):
    """A network with a step of its own."""

    def step(self, previous: Tensor, state: Tensor, memory: Memory, lengths: Tensor) -> Step:
        return super().step(previous, -state, memory, lengths)


def test_a_step_of_the_users_own_is_not_replaced() -> None:
    model = network()
    assert can_fuse(model)

    model.decoder.readout.__class__ = Doubled
    assert not can_fuse(model)
    assert AttentionDecoderGraph(model).fused is None

    model = network()
    model.__class__ = Stepping
    assert not can_fuse(model)
