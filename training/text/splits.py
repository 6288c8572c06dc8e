"""The training, validation and test sets of a run on sequences: texts, or rows of pictures."""

from dataclasses import replace
from pathlib import Path

from weir.training.data import TEXT_SETS, ImageData, TextData, load, load_text
from weir.training.data.images import divide
from weir.training.data.text import divide_text
from weir.training.data.text_files import load_file
from weir.training.errors import DataError
from weir.training.reproducibility import Purpose, derive_seed
from weir.training.splits import Splits, draw_training_rows, read_splits
from weir.training.text.recipes import SequenceRecipe


def read_texts(recipe: SequenceRecipe) -> Splits[TextData]:
    """Read all three sets, see `read_splits`.

    Raises:
        DataError: a file is missing or broken, too few rows, or labels that do not fit the task.
    """

    def read(setting: str) -> TextData | None:
        name = getattr(recipe, setting)
        if name is None:
            return None
        if not Path(name).is_file():
            raise DataError(f"{name}: expected a file, got none")
        return load_file(Path(name), column=recipe.column)

    texts = read_splits(
        recipe,
        TEXT_SETS,
        lambda split: load_text(recipe.data, split, column=recipe.column),
        read,
        divide_text,
    )
    for data, use in ((texts.train, "train"), (texts.validation, "validate"), (texts.test, "test")):
        _require_kind(data, recipe)
        if not data.rows:
            raise DataError(
                f"{recipe.data}: too few rows to hold some out, none is left to {use} on"
            )
    kept = draw_training_rows(len(texts.train.rows), recipe)
    train = texts.train if kept is None else texts.train.take(kept)
    for data in (texts.validation, texts.test):
        _require_known(data, train)
    return replace(texts, train=train)


def read_pictures(recipe: SequenceRecipe) -> Splits[ImageData]:
    """Read grey pictures of 28 x 28; the validation rows come from the training split.

    Raises:
        DataError: unknown set, or broken files.
    """
    given, test = (load(recipe.data, split) for split in ("train", "test"))
    division = divide(
        given.labels, recipe.validation_share, derive_seed(recipe.seed, Purpose.DIVISION)
    )
    kept = draw_training_rows(len(division.kept), recipe)
    rows = division.kept if kept is None else division.kept[kept]
    return Splits(given.take(rows), given.take(division.held_out), test, given.checksum)


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
