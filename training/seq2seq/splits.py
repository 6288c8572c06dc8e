"""The training, validation and test sets of a run on pairs."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from weir.training.data import PAIR_SETS, PairData, load_pairs
from weir.training.data.pairs import divide_pairs, load_pair_file
from weir.training.errors import DataError
from weir.training.seq2seq.recipes import Seq2SeqRecipe
from weir.training.splits import Splits, draw_training_rows, read_splits


def read_pairs(recipe: Seq2SeqRecipe) -> Splits[PairData]:
    """Read all three sets, see `read_splits`.

    Raises:
        DataError: a file is missing or broken, or a set has no rows.
    """
    files = {
        "data": (recipe.data, recipe.target_data),
        "dev": (recipe.dev, recipe.dev_target),
        "test": (recipe.test, recipe.test_target),
    }
    pairs = read_splits(
        recipe,
        PAIR_SETS,
        lambda split: load_pairs(
            recipe.data,
            split,
            target_data=recipe.target_data,
            stress=recipe.stress,
            source_language=recipe.source_language,
            target_language=recipe.target_language,
        ),
        lambda setting: _file(*files[setting]),
        divide_pairs,
    )
    train = _shortened(pairs.train, recipe)
    rows = draw_training_rows(len(train), recipe)
    return replace(
        pairs,
        train=train if rows is None else train.take(rows),
        validation=_shortened(pairs.validation, recipe),
        test=_shortened(pairs.test, recipe),
    )


def read_whole(recipe: Seq2SeqRecipe) -> PairData:
    """Read all rows of the user's file as a test set; errors as `read_pairs`."""
    own = _file(recipe.data, recipe.target_data)
    if own is None:
        raise DataError(f"{recipe.data}: expected a file, got none")
    return _shortened(own, recipe)


def _file(name: str | None, target: str | None) -> PairData | None:
    if name is None:
        return None
    for each in filter(None, (name, target)):
        if not Path(each).is_file():
            raise DataError(f"{each}: expected a file, got none")
    return load_pair_file(Path(name), Path(target) if target else None)


def _shortened(data: PairData, recipe: Seq2SeqRecipe) -> PairData:
    """The rows whose source is within the recipe's limit of characters."""
    most = recipe.most_characters
    if most is not None:
        lengths = np.array([len(source) for source in data.sources], np.int64)
        data = data.take(np.flatnonzero(lengths <= most))
    if not len(data):
        raise DataError(f"{data.name}: expected sources of up to {most} characters, got none")
    return data
