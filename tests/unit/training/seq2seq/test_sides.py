"""Both sides of a run, and their files."""

from pathlib import Path

import pytest

from weir.training.data.pairs import PairData
from weir.training.errors import RunError
from weir.training.seq2seq.recipe import Seq2SeqRecipe
from weir.training.seq2seq.recipes import QUICK, RECIPES
from weir.training.seq2seq.sides import learn_sides, read_sides, write_sides

DATA = PairData("x", ("ein Hund", "zwei Hunde"), (("a dog",), ("two dogs", "2 dogs")), "0")


def recipe_of(name: str) -> Seq2SeqRecipe:
    return Seq2SeqRecipe.model_validate({**RECIPES[name]("x"), "name": name, "data": "x"})


@pytest.mark.parametrize("name", sorted(QUICK))
def test_sides_come_back_from_a_run_directory(name: str, tmp_path: Path) -> None:
    recipe = recipe_of(name)
    sides = learn_sides(DATA, recipe)

    write_sides(sides, tmp_path)

    assert read_sides(tmp_path, recipe) == sides
    assert sides.source.text(sides.source.encode("ein Hund")) == "ein hund"


def test_all_accepted_targets_are_learnt_from() -> None:
    assert "2" in learn_sides(DATA, recipe_of("pronounce")).target.vocabulary.entries


@pytest.mark.parametrize("missing", ["vocabulary.target.txt", "subwords.source.model"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    recipe = recipe_of("translate")
    write_sides(learn_sides(DATA, recipe), tmp_path)
    (tmp_path / missing).unlink()

    with pytest.raises(RunError, match=f"{missing}: cannot be read"):
        read_sides(tmp_path, recipe)
