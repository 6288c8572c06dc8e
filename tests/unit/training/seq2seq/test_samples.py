"""The outputs that are left to be read."""

from pathlib import Path

import pytest

from weir.training.data.pairs import PairData
from weir.training.seq2seq.hypotheses import Hypothesis
from weir.training.seq2seq.recipe import Seq2SeqRecipe
from weir.training.seq2seq.recipes import RECIPES
from weir.training.seq2seq.samples import COUNT, leave_samples
from weir.training.seq2seq.sides import Sides, learn_sides


def left(texts: list[str], data: PairData, sides: Sides, path: Path) -> list[list[str]]:
    encode = sides.target.encode
    found = [Hypothesis(tuple(encode(text)), -1.0, -1.0, is_complete=True) for text in texts]
    leave_samples(found, data, sides, path)
    return [line.split("\t") for line in path.read_text("utf-8").splitlines()]


def learn(data: PairData, **target: object) -> Sides:
    settings = {**RECIPES["pronounce"]("x"), "name": "pronounce", "data": "x"}
    target = {"rule": "spaces", **target}
    return learn_sides(data, Seq2SeqRecipe.model_validate({**settings, "target": target}))


def many(count: int) -> PairData:
    sources = tuple(f"w{row}" for row in range(count))
    return PairData("x", sources, (("A",),) * count, "0")


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [(50, 50, (10, 10)), (3, 50, (3, 17)), (50, 3, (17, 3)), (2, 3, (2, 3)), (0, 30, (0, 20))],
    ids=str,
)
def test_half_of_them_are_right_where_there_are_as_many(
    right: int, wrong: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    data = many(right + wrong)
    texts = ["A"] * right + ["A A"] * wrong

    rows = left(texts, data, learn(data), tmp_path / "samples.txt")

    marks = [row[0] for row in rows]
    assert (marks.count("right"), marks.count("wrong")) == expected
    assert marks == sorted(marks) and len(rows) <= COUNT
    assert len({row[1] for row in rows}) == len(rows)


def test_they_are_spread_over_the_set(tmp_path: Path) -> None:
    data = many(100)

    rows = left(["A A"] * 100, data, learn(data), tmp_path / "samples.txt")

    assert [row[1] for row in rows] == [f"w{5 * place}" for place in range(COUNT)]


def test_a_line_has_source_output_and_all_references(tmp_path: Path) -> None:
    data = PairData("x", ("Ab", "Ba"), (("a B", "B"), ("C",)), "0")

    rows = left(["b", "a b"], data, learn(data, lower=True), tmp_path / "samples.txt")

    assert rows == [["right", "Ab", "b", "a B | B"], ["wrong", "Ba", "a b", "C"]]
