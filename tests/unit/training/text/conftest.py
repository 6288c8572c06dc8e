"""Small recipes of sequence tasks, on tiny files."""

from pathlib import Path

import pytest

from tests.helpers.sequence_files import write_conllu, write_labelled
from weir.training.recipe import Setting
from weir.training.recipes import change_recipe, make_recipe, quicken
from weir.training.text.recipes import SequenceRecipe


def quick(name: str, data: str | None = None, **changes: Setting) -> SequenceRecipe:
    """A recipe's quick form, with changes."""
    recipe = change_recipe(quicken(make_recipe(name, data)), **changes)
    assert isinstance(recipe, SequenceRecipe)
    return recipe


@pytest.fixture
def tagging(tmp_path: Path) -> SequenceRecipe:
    """A tagger that reads spelling, words hidden and dropped: three epochs of ten steps or so."""
    return quick("tagger", str(write_conllu(tmp_path / "tagged.conllu")), epochs=3, batch_size=4)


@pytest.fixture
def classifying(tmp_path: Path) -> SequenceRecipe:
    """A classifier of two classes of texts."""
    return quick("question", str(write_labelled(tmp_path / "labelled.tsv")), epochs=3)
