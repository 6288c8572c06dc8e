"""A small set of words for the tests of pairs, and a recipe for it."""

from pathlib import Path

import pytest

from weir.training.seq2seq.recipes import RECIPES, Seq2SeqRecipe

WORDS = ("ab", "abc", "b", "ba", "bab", "c", "ca", "cab", "cc", "cca")


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Ten words, spelt with capitals; one has two targets."""
    path = tmp_path / "words.tsv"
    lines = [f"{word}\t{' '.join(word.upper())}\n" for word in WORDS]
    path.write_text("".join([*lines, "cab\tK AB\n"]))
    return path


@pytest.fixture
def recipe(words: Path) -> Seq2SeqRecipe:
    settings = {**RECIPES["pronounce"](str(words)), "name": "pronounce", "data": str(words)}
    return Seq2SeqRecipe.model_validate({**settings, "batch_size": 3, "epochs": 2})
