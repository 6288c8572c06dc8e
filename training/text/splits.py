"""The training, validation and test sets of a run on sequences: texts, or rows of pictures."""

from dataclasses import dataclass
from pathlib import Path

from weir.training.data import TEXT_SETS, ImageData, TextData, load, load_text
from weir.training.data.images import Rows, divide, draw_rows, joint_checksum
from weir.training.data.text import divide_text
from weir.training.data.text_files import load_file
from weir.training.errors import DataError
from weir.training.reproducibility import Purpose, derive_seed
from weir.training.text.recipes import SequenceRecipe

WITH_DEV = ("ewt",)
"""The sets that come with validation rows."""


@dataclass(frozen=True, slots=True)
class TextSets:
    """Rows for training, for choosing the best epoch, and for the test."""

    train: TextData
    validation: TextData
    test: TextData
    checksum: str


@dataclass(frozen=True, slots=True)
class PictureSets:
    """Pictures for training, for choosing the best epoch, and for the test."""

    train: ImageData
    validation: ImageData
    test: ImageData


def read_texts(recipe: SequenceRecipe) -> TextSets:
    """Read all three sets; a set without a file of its own is held out of `data`.

    With a validation file and no test file, the validation file is the test set too. The accuracy
    is then that of rows that the epoch was chosen by.

    Raises:
        DataError: a file is missing or broken, too few rows, or labels that do not fit the task.
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
    return TextSets(
        train=train,
        validation=dev,
        test=test,
        checksum=joint_checksum(given.checksum, dev.checksum, test.checksum),
    )


def read_pictures(recipe: SequenceRecipe) -> PictureSets:
    """Read grey pictures of 28 x 28; the validation rows come from the training split.

    Raises:
        DataError: unknown set, or broken files.
    """
    given, test = (load(recipe.data, split) for split in ("train", "test"))
    division = divide(
        given.labels, recipe.validation_share, derive_seed(recipe.seed, Purpose.DIVISION)
    )
    kept = _thinned(len(division.kept), recipe)
    rows = division.kept if kept is None else division.kept[kept]
    return PictureSets(given.take(rows), given.take(division.held_out), test)


def _train(recipe: SequenceRecipe) -> TextData:
    """The training rows: all of the user's file if another set has a file of its own."""
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
        raise DataError(f"{name}: expected a file, got none")
    return load_file(Path(name), column=recipe.column)


def _require_kind(data: TextData, recipe: SequenceRecipe) -> None:
    if data.is_tagged != (recipe.task == "tagging"):
        wanted, found = "a label for each row", "one for each token"
        if recipe.task == "tagging":
            wanted, found = found.replace("one", "a tag"), wanted
        raise DataError(f"{data.name}: {recipe.name} needs {wanted}, got {found}")


def _require_known(data: TextData, train: TextData) -> None:
    """Require a label that training has; other labels may be unknown."""
    if set(data.classes).isdisjoint(train.classes):
        raise DataError(
            f"{data.name}: expected labels of the training rows, as {train.classes[0]!r}, "
            f"got others only, as {data.classes[0]!r}"
        )


def _thinned(count: int, recipe: SequenceRecipe) -> Rows | None:
    """The training rows to keep if the recipe limits their number, else None."""
    return draw_rows(count, recipe.most_rows, derive_seed(recipe.seed, Purpose.DIVISION, 1))
