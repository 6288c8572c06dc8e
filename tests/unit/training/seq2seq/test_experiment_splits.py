"""The training, validation and test sets of a run on pairs."""

from pathlib import Path

import pytest

from weir.training.data import PairData
from weir.training.errors import DataError
from weir.training.seq2seq.experiment import read_pairs
from weir.training.seq2seq.recipes import Seq2SeqRecipe
from weir.training.splits import Splits


def sources(sets: Splits[PairData]) -> list[set[str]]:
    return [set(data.sources) for data in (sets.train, sets.validation, sets.test)]


def test_nothing_is_in_two_sets(recipe: Seq2SeqRecipe) -> None:
    train, validation, test = sources(read_pairs(recipe))

    assert (len(train), len(validation), len(test)) == (7, 1, 2)
    assert not train & validation and not train & test and not validation & test
    assert sources(read_pairs(recipe)) == [train, validation, test]


def test_user_files_are_used_completely(recipe: Seq2SeqRecipe, tmp_path: Path) -> None:
    (tmp_path / "dev.a").write_text("x\ny\n")
    (tmp_path / "dev.b").write_text("X\nY\n")
    changed = recipe.model_copy(
        update={"dev": str(tmp_path / "dev.a"), "dev_target": str(tmp_path / "dev.b")}
    )

    train, validation, test = sources(read_pairs(changed))

    assert len(train) == 10 and validation == test == {"x", "y"}
    assert read_pairs(changed).checksum != read_pairs(recipe).checksum
    with pytest.raises(DataError, match="nowhere: expected a file, got none"):
        read_pairs(recipe.model_copy(update={"test": "nowhere"}))


def test_two_files_train_alike(recipe: Seq2SeqRecipe, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("".join(f"{row}\n" for row in range(10)))
    (tmp_path / "b").write_text("".join(f"{row} {row}\n" for row in range(10)))
    changed = recipe.model_copy(
        update={"data": str(tmp_path / "a"), "target_data": str(tmp_path / "b")}
    )

    sets = read_pairs(changed)

    assert all(target == f"{source} {source}" for source, target in sets.train.pairs())
    assert sum(map(len, sources(sets))) == 10


def test_long_sources_and_further_rows_are_left_out(recipe: Seq2SeqRecipe) -> None:
    short = read_pairs(recipe.model_copy(update={"most_characters": 2}))
    few = read_pairs(recipe.model_copy(update={"most_rows": 3}))

    assert max(len(word) for words in sources(short) for word in words) == 2
    assert len(few.train) == 3 and sources(few)[1:] == sources(read_pairs(recipe))[1:]
    with pytest.raises(DataError, match="expected sources of up to 0 characters, got none"):
        read_pairs(recipe.model_copy(update={"most_characters": 0}))
