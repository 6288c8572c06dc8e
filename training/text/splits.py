"""The three sets of a run on sequences, as they are read: texts, or pictures to be read row by row."""

from dataclasses import dataclass
from pathlib import Path

from weir.training.data import TEXT_SETS, ImageData, TextData, load, load_text
from weir.training.data.images import Rows, divide, draw_rows, joint_checksum
from weir.training.data.lines import load_file
from weir.training.data.text import divide_text
from weir.training.errors import DataError
from weir.training.reproducibility import Purpose, derive_seed
from weir.training.text.recipe import SequenceRecipe

WITH_DEV = ("ewt",)
"""The sets that come with rows to validate on."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Rows to learn from, to choose the best epoch by, and to test on once."""

    train: TextData
    validation: TextData
    test: TextData
    checksum: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """The same of pictures."""

    train: ImageData
    validation: ImageData
    test: ImageData


def read_texts(recipe: SequenceRecipe) -> Texts:
    """All three sets; what the recipe names no file for is held out of `data`.

    With a file to validate on and none to test on, that one is tested on too: the accuracy is then of rows
    that the epoch was chosen by.

    Raises:
        DataError: a file that is not here or broken, too few rows, or labels of another kind than the task's.
    """
    given, dev, test = _train(recipe), _file(recipe, recipe.dev), _file(recipe, recipe.test)
    test = test or (dev if recipe.data not in TEXT_SETS else None) or _split(recipe, "test")
    if dev is None and recipe.data in WITH_DEV:
        dev = _split(recipe, "dev")
    if dev is None:
        seed = derive_seed(recipe.seed, Purpose.DIVISION)
        division = divide_text(given, recipe.validation_share, seed)
        given, dev = given.take(division.kept), given.take(division.held_out)
    for data, use in ((given, "train"), (dev, "validate"), (test, "test")):
        _require_kind(data, recipe)
        if not data.rows:
            raise DataError(
                f"{recipe.data}: too few rows to hold some out, none is left to {use} on"
            )
    kept = _thinned(len(given.rows), recipe)
    train = given if kept is None else given.take(kept)
    for data in (dev, test):
        _require_known(data, train)
    return Texts(
        train=train,
        validation=dev,
        test=test,
        checksum=joint_checksum(given.checksum, dev.checksum, test.checksum),
    )


def read_pictures(recipe: SequenceRecipe) -> Pictures:
    """Grey pictures of 28 x 28, the validation rows taken from the training split.

    Raises:
        DataError: no such set, or broken files.
    """
    given, test = (load(recipe.data, split) for split in ("train", "test"))
    division = divide(
        given.labels, recipe.validation_share, derive_seed(recipe.seed, Purpose.DIVISION)
    )
    kept = _thinned(len(division.kept), recipe)
    rows = division.kept if kept is None else division.kept[kept]
    return Pictures(given.take(rows), given.take(division.held_out), test)


def _train(recipe: SequenceRecipe) -> TextData:
    """The rows to learn from: all of a file of the caller's that is not needed for more than that."""
    is_whole = recipe.data not in TEXT_SETS and (recipe.dev or recipe.test)
    own = _file(recipe, recipe.data) if is_whole else None
    return own or _split(recipe, "train")


def _split(recipe: SequenceRecipe, split: str) -> TextData:
    match split:
        case "train" | "dev" | "test":
            return load_text(recipe.data, split, column=recipe.column)
    raise ValueError(split)


def _file(recipe: SequenceRecipe, name: str | None) -> TextData | None:
    if name is None:
        return None
    if not Path(name).is_file():
        raise DataError(f"{name}: expected a file, found none")
    return load_file(Path(name), column=recipe.column)


def _require_kind(data: TextData, recipe: SequenceRecipe) -> None:
    if data.is_tagged != (recipe.task == "tagging"):
        wanted, found = "a label for each row", "one for each token"
        if recipe.task == "tagging":
            wanted, found = found.replace("one", "a tag"), wanted
        raise DataError(f"{data.name}: {recipe.name} needs {wanted}, found {found}")


def _require_known(data: TextData, train: TextData) -> None:
    """Refuse rows none of which could be answered rightly; some may be of classes that training lacks."""
    if set(data.classes).isdisjoint(train.classes):
        raise DataError(
            f"{data.name}: expected labels of the training rows, as {train.classes[0]!r}, "
            f"found others only, as {data.classes[0]!r}"
        )


def _thinned(count: int, recipe: SequenceRecipe) -> Rows | None:
    """Which training rows are kept where the recipe wants fewer."""
    return draw_rows(count, recipe.most_rows, derive_seed(recipe.seed, Purpose.DIVISION, 1))
