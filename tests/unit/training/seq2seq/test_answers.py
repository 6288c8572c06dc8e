"""Whole outputs of a network: whose they are, and that company changes none."""

import pytest
import torch

from tests.helpers.encoder_decoders import SOURCE, TARGET, network
from weir.training.data.segment import Segmenter, Side
from weir.training.data.vocabulary import Vocabulary
from weir.training.errors import DataError
from weir.training.seq2seq.answers import answer
from weir.training.seq2seq.recipe import SearchSettings
from weir.training.seq2seq.sides import Sides

SIDES = Sides(
    Side(Segmenter("letters"), Vocabulary(tuple(SOURCE))),
    Side(Segmenter("spaces"), Vocabulary(tuple(TARGET))),
)
SETTINGS = SearchSettings(most_tokens=12)
# Out of the order of lengths, and one of them twice.
TEXTS = ["abcdefg", "h", "ca", "bbbbb", "h", "gfedcbaabc", "dd", "hag"]

every_width = pytest.mark.parametrize("width", [1, 3], ids=["greedy", "beam"])


@every_width
@pytest.mark.parametrize("attends", [True, False], ids=["attention", "none"])
def test_order_is_kept_and_each_is_what_it_is_alone(width: int, *, attends: bool) -> None:
    asked = network(attends=attends)

    together = answer(asked, TEXTS, SIDES, SETTINGS, width=width)

    alone = [answer(asked, [text], SIDES, SETTINGS, width=width)[0] for text in TEXTS]
    assert [found.tokens for found in together] == [found.tokens for found in alone]
    assert len({found.tokens for found in together}) > 2
    for text, one, other in zip(TEXTS, together, alone, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert (one.attention is not None) == attends
        if one.attention is not None and other.attention is not None:
            steps = len(one.tokens) + one.is_complete
            assert len(one.attention) == steps
            own = one.attention[:, : len(text)]
            torch.testing.assert_close(own, other.attention, atol=1e-5, rtol=0)
            assert not one.attention[:, len(text) :].any()


@every_width
def test_no_output_is_longer_than_the_limit(width: int) -> None:
    found = answer(network(), TEXTS, SIDES, SearchSettings(most_tokens=2), width=width)

    assert all(len(each.tokens) + each.is_complete <= 2 for each in found)


def test_a_network_in_training_is_asked_without_dropout() -> None:
    asked = network(dropout=0.5).train()

    first, again = (answer(asked, TEXTS, SIDES, SETTINGS, width=1) for _ in range(2))

    assert [found.score for found in first] == [found.score for found in again]


def test_a_blank_source_is_named() -> None:
    with pytest.raises(DataError, match="expected a text with tokens, found ' '"):
        answer(network(), ["a", " "], SIDES, SETTINGS, width=1)
