"""The three sets of a run on pairs, as they are read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weir.training.data import PAIR_SETS, PairData, SequenceSplit, load_pairs
from weir.training.data.images import draw_rows, joint_checksum
from weir.training.data.pairfile import load_pair_file
from weir.training.data.pairs import divide_pairs
from weir.training.errors import DataError
from weir.training.reproducibility import Purpose, derive_seed
from weir.training.seq2seq.recipe import Seq2SeqRecipe

WITH_DEV = ("multi30k",)
"""The sets that come with rows to validate on."""


@dataclass(frozen=True, slots=True)
class PairSets:
    """Rows to learn from, to choose the best epoch by, and to test on once."""

    train: PairData
    validation: PairData
    test: PairData
    checksum: str


def read_pairs(recipe: Seq2SeqRecipe) -> PairSets:
    """All three sets; what the recipe names no file for is held out of `data`.

    With a file to validate on and none to test on, that one is tested on too: the scores are then of rows that
    the epoch was chosen by.

    Raises:
        DataError: a file that is not here or broken, or a set without rows.
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
    """All rows of the caller's file, as it would be tested on, under the same conditions."""
    own = _file(recipe.data, recipe.target_data)
    if own is None:
        raise DataError(f"{recipe.data}: expected a file, found none")
    return _shortened(own, recipe)


def _train(recipe: Seq2SeqRecipe) -> PairData:
    """The rows to learn from: all of a file of the caller's that is not needed for more than that."""
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
            raise DataError(f"{each}: expected a file, found none")
    return load_pair_file(Path(name), Path(target) if target else None)


def _shortened(data: PairData, recipe: Seq2SeqRecipe) -> PairData:
    """Without the sources that are longer than the recipe wants them."""
    most = recipe.most_characters
    if most is not None:
        lengths = np.array([len(source) for source in data.sources], np.int64)
        data = data.take(np.flatnonzero(lengths <= most))
    if not len(data):
        raise DataError(f"{data.name}: expected sources of up to {most} characters, found none")
    return data


def _thinned(data: PairData, recipe: Seq2SeqRecipe) -> PairData:
    """As many training rows as the recipe wants."""
    rows = draw_rows(len(data), recipe.most_rows, derive_seed(recipe.seed, Purpose.DIVISION, 1))
    return data if rows is None else data.take(rows)
