"""The attention figure: choice of outputs, and drawing."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from weir.training.data.pairs import PairData
from weir.training.seq2seq.experiment import learn_sides
from weir.training.seq2seq.figures import MOST_TOKENS, choose, draw_attention
from weir.training.seq2seq.recipes import RECIPES, Seq2SeqRecipe
from weir.training.seq2seq.search import Hypothesis

DATA = PairData("x", ("ein $Hund$", "zwei Hunde"), (("a $dog$",), ("two dogs",)), "0")


def hypothesis(ids: list[int], width: int, *, is_complete: bool = True) -> Hypothesis:
    # Wider than the source, as it comes out of a batch.
    attention = torch.softmax(torch.randn(len(ids) + is_complete, width + 3), dim=1)
    return Hypothesis(tuple(ids), -1.0, -1.0, is_complete, attention)


def test_the_longest_that_can_be_read_are_chosen() -> None:
    lengths = [3, MOST_TOKENS, MOST_TOKENS + 1, 5, 0, 4, 6]
    found = [hypothesis([4] * length, 2) for length in lengths]
    found[3] = hypothesis([4] * 5, 2, is_complete=False)
    sources = [["a"]] * 6 + [["a"] * (MOST_TOKENS + 1)]

    assert choose(found, sources) == [1, 5, 0]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_picture_is_left(name: str, tmp_path: Path) -> None:
    settings = {**RECIPES[name]("x"), "name": name, "data": "x"}
    sides = learn_sides(DATA, Seq2SeqRecipe.model_validate(settings))
    found = [
        hypothesis(sides.target.encode(accepted[0]), len(sides.source.encode(source)))
        for source, accepted in zip(DATA.sources, DATA.references, strict=True)
    ]

    draw_attention(found, DATA, sides, tmp_path / "attention.png")

    with Image.open(tmp_path / "attention.png") as picture:
        assert min(picture.size) > 500


def test_where_no_output_ended_there_is_none(tmp_path: Path) -> None:
    settings = {**RECIPES["pronounce"]("x"), "name": "pronounce", "data": "x"}
    sides = learn_sides(DATA, Seq2SeqRecipe.model_validate(settings))
    found = [hypothesis([4, 4], 4, is_complete=False)] * 2

    draw_attention(found, DATA, sides, tmp_path / "attention.png")

    assert not (tmp_path / "attention.png").exists()
