import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.sequence_networks import recurrent_spec
from weir.bundle.contract import Quantisation
from weir.export.accuracy import NO_ANSWER, check_drop, measure
from weir.export.errors import AccuracyError, ExportError
from weir.export.graph import convert


class Parity(nn.Module):
    """Scores (B, T, 2): whether a token is odd."""

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        odd = (tokens % 2).to(torch.float32)
        return torch.stack([1 - odd, odd], dim=-1), lengths[:, None] + tokens


TOKENS = np.array([[1, 2, 3], [4, 5, 0], [7, 0, 0]])
ANSWERS = np.array([[1, 0, 0], [0, 1, NO_ANSWER], [0, NO_ANSWER, NO_ANSWER]])


@pytest.fixture(scope="module")
def graph() -> bytes:
    given = {"tokens": torch.from_numpy(TOKENS), "lengths": torch.tensor([3, 2, 1])}
    return convert(Parity().eval(), given, recurrent_spec(labels={}))


@pytest.mark.parametrize("width", [3, 2], ids=["padded", "cut"])
def test_answers_of_steps_are_counted_within_rows(graph: bytes, width: int) -> None:
    first = {"tokens": TOKENS[:1], "lengths": np.array([3])}
    others = {"tokens": TOKENS[1:, :width], "lengths": np.array([2, 1])}

    assert measure(graph, [first, others], ANSWERS, "logits") == 4 / 6


def test_nothing_to_answer_is_refused(graph: bytes) -> None:
    rows = {"tokens": TOKENS, "lengths": np.array([3, 2, 1])}

    with pytest.raises(ExportError, match="expected answers to measure accuracy by"):
        measure(graph, [rows], np.full((3, 3), NO_ANSWER), "logits")


def test_drop_is_stated_in_points() -> None:
    cost = Quantisation(method="dynamic", before=0.9, after=0.88, test="rows", test_rows=1000)

    check_drop(cost, 2.0)
    with pytest.raises(AccuracyError, match=r"from 90\.00% to 88\.00% on 1,000 rows, by 2\.00"):
        check_drop(cost, 1.9)
