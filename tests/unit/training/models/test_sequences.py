"""Sequence networks: values in the padding change no result."""

from typing import get_args

import pytest
import torch

from weir.training.errors import ModelError
from weir.training.models.recurrent import Recurrent
from weir.training.models.sequences import (
    EncoderKind,
    Pool,
    SequenceClassifier,
    build_frame_network,
    build_text_network,
)

KINDS = list(get_args(EncoderKind))
LENGTHS = torch.tensor([9, 1, 5])
TOLERANCE = 1e-6
LETTERS = 6

every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
every_pool = pytest.mark.parametrize("pool", get_args(Pool), ids=str)


def sentences() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (3, 9) and letters (3, 9, 6): beyond the lengths they are garbage, not 0."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 20, (3, 9), generator=generator)
    return tokens, torch.randint(0, 10, (3, 9, LETTERS), generator=generator)


@every_kind
@every_pool
def test_text_classifier_sees_no_padding(kind: EncoderKind, pool: Pool) -> None:
    torch.manual_seed(0)
    network = build_text_network(
        kind, words=20, classes=4, hidden=8, pool=pool, bidirectional=True, layers=2
    ).eval()
    tokens, _ = sentences()

    logits = network(tokens, LENGTHS)

    for row, length in enumerate(LENGTHS.tolist()):
        alone = network(tokens[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(logits[row], alone[0], atol=TOLERANCE, rtol=0)


@every_kind
def test_tagger_sees_no_padding(kind: EncoderKind) -> None:
    torch.manual_seed(0)
    network = build_text_network(
        kind,
        pool=None,
        words=20,
        classes=4,
        hidden=8,
        letters={"characters": 10},
        bidirectional=True,
    ).eval()
    tokens, characters = sentences()

    logits = network(tokens, LENGTHS, characters)

    for row, length in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1)
        alone = network(tokens[one, :length], LENGTHS[one], characters[one, :length])
        torch.testing.assert_close(logits[row, :length], alone[0], atol=TOLERANCE, rtol=0)
        fixed = network.core.output.bias.expand(9 - length, -1)
        torch.testing.assert_close(logits[row, length:], fixed, atol=TOLERANCE, rtol=0)


@every_kind
@every_pool
def test_frame_classifier_sees_no_padding(kind: EncoderKind, pool: Pool) -> None:
    torch.manual_seed(0)
    network = build_frame_network(
        kind, features=8, mean=0.1, std=0.3, classes=4, hidden=8, pool=pool
    ).eval()
    frames = torch.randint(0, 256, (3, 9, 8), dtype=torch.uint8)

    logits = network(frames, LENGTHS)

    for row, length in enumerate(LENGTHS.tolist()):
        alone = network(frames[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(logits[row], alone[0], atol=TOLERANCE, rtol=0)


def test_pools_are_of_the_states() -> None:
    torch.manual_seed(0)
    encoder = Recurrent("gru", 3, 4)
    vectors = torch.randn(3, 9, 3)
    states = encoder(vectors, LENGTHS).states

    for pool, pooled in (
        ("last", torch.stack([states[0, 8], states[1, 0], states[2, 4]])),
        ("mean", torch.stack([states[0].mean(0), states[1, 0], states[2, :5].mean(0)])),
    ):
        network = SequenceClassifier(encoder, classes=2, pool=pool)  # type: ignore[arg-type]
        torch.testing.assert_close(network(vectors, LENGTHS), network.output(pooled))


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(ModelError, match="unknown pooling 'sum'; there are last, mean"):
        SequenceClassifier(Recurrent("gru", 3, 4), classes=2, pool="sum")  # type: ignore[arg-type]
