"""The training, validation and test sets of a run on pairs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weir.training.data import PAIR_SETS, PairData, SequenceSplit, load_pairs
from weir.training.data.images import draw_rows, joint_checksum
from weir.training.data.pairs import divide_pairs, load_pair_file
from weir.training.errors import DataError
from weir.training.reproducibility import Purpose, derive_seed
from weir.training.seq2seq.recipes import Seq2SeqRecipe

WITH_DEV = ("multi30k",)
"""The sets that come with validation rows."""


@dataclass(frozen=True, slots=True)
class PairSets:
    """Rows for training, for choosing the best epoch, and for the test."""

    train: PairData
    validation: PairData
    test: PairData
    checksum: str


def read_pairs(recipe: Seq2SeqRecipe) -> PairSets:
    """Read all three sets; a set without a file of its own is held out of `data`.

    With a validation file and no test file, the validation file is the test set too. The scores are
    then those of rows that the epoch was chosen by.

    Raises:
        DataError: a file is missing or broken, or a set has no rows.
    """
    given = _train(recipe)
    dev, test = _file(recipe.dev, recipe.dev_target), _file(recipe.test, recipe.test_target)
    test = test or (dev if recipe.data not in PAIR_SETS else None) or _split(recipe, "test")
    if dev is None and recipe.data in WITH_DEV:
        dev = _split(recipe, "dev")
    if dev is None:
        seed = derive_seed(recipe.seed, Purpose.DIVISION)
        division = divide_pairs(given, recipe.validation_share, seed)
        given, dev = given.take(division.kept), given.take(division.held_out)
    return PairSets(
        train=_thinned(_shortened(given, recipe), recipe),
        validation=_shortened(dev, recipe),
        test=_shortened(test, recipe),
        checksum=joint_checksum(given.checksum, dev.checksum, test.checksum),
    )


def read_whole(recipe: Seq2SeqRecipe) -> PairData:
    """Read all rows of the user's file as a test set; errors as `read_pairs`."""
    own = _file(recipe.data, recipe.target_data)
    if own is None:
        raise DataError(f"{recipe.data}: expected a file, got none")
    return _shortened(own, recipe)


def _train(recipe: Seq2SeqRecipe) -> PairData:
    """The training rows: all of the user's file if another set has a file of its own."""
    is_whole = recipe.data not in PAIR_SETS and (recipe.dev or recipe.test)
    own = _file(recipe.data, recipe.target_data) if is_whole else None
    return own or _split(recipe, "train")


def _split(recipe: Seq2SeqRecipe, split: SequenceSplit) -> PairData:
    return load_pairs(
        recipe.data,
        split,
        target_data=recipe.target_data,
        stress=recipe.stress,
        source_language=recipe.source_language,
        target_language=recipe.target_language,
    )


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


def _thinned(data: PairData, recipe: Seq2SeqRecipe) -> PairData:
    """The recipe's number of training rows."""
    rows = draw_rows(len(data), recipe.most_rows, derive_seed(recipe.seed, Purpose.DIVISION, 1))
    return data if rows is None else data.take(rows)
