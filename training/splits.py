"""The training, validation and test rows of a run on texts or pairs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from weir.training.data.hub import has_validation, is_hub
from weir.training.data.images import Divisible, Division, Rows, draw_rows, joint_checksum
from weir.training.data.text import SequenceSplit
from weir.training.reproducibility import Purpose, derive_seed
from weir.training.run_directory import SplitRecord
from weir.training.seq2seq.recipes import Seq2SeqRecipe
from weir.training.text.recipes import SequenceRecipe

WITH_DEV = ("ewt", "multi30k")
"""The named sets that come with validation rows."""


class DataSet(Divisible, Protocol):
    """Rows that can be selected, of known files."""

    @property
    def checksum(self) -> str:
        """SHA-256 over the source files."""


Data = TypeVar("Data", bound=DataSet)


@dataclass(frozen=True, slots=True)
class Splits(Generic[Data]):
    """Rows for training, for choosing the best epoch, and for the test."""

    train: Data
    validation: Data
    test: Data
    checksum: str
    split_checksums: SplitRecord


def read_splits(
    recipe: SequenceRecipe | Seq2SeqRecipe,
    named: tuple[str, ...],
    load: Callable[[SequenceSplit], Data],
    read: Callable[[str], Data | None],
    divide: Callable[[Data, float, int], Division],
) -> Splits[Data]:
    """Read all three sets; a set without a file of its own is held out of `data`.

    With a validation file and no test file, the validation file is the test set too. The scores are
    then those of rows that the epoch was chosen by.

    Args:
        named: the named sets of this kind.
        load: reads a split of `data`.
        read: reads the user's file that the setting `data`, `dev` or `test` names, if it is set.
        divide: holds out a share of the rows.
    """
    is_named = recipe.data in named or is_hub(recipe.data)
    # All of the user's file is for training if another set has a file of its own.
    given = read("data") if not is_named and (recipe.dev or recipe.test) else None
    given = given or load("train")
    dev, test = read("dev"), read("test")
    test = test or (None if is_named else dev) or load("test")
    if dev is None and (recipe.data in WITH_DEV or has_validation(recipe.data)):
        dev = load("dev")
    if dev is None:
        seed = derive_seed(recipe.seed, Purpose.DIVISION)
        division = divide(given, recipe.validation_share, seed)
        given, dev = given.take(division.kept), given.take(division.held_out)
    checksums = SplitRecord(train=given.checksum, validation=dev.checksum, test=test.checksum)
    return Splits(
        given, dev, test, joint_checksum(given.checksum, dev.checksum, test.checksum), checksums
    )


def describe_test_rows(
    recipe: SequenceRecipe | Seq2SeqRecipe, checksums: SplitRecord
) -> dict[str, str]:
    """The note of a run that tests on the rows that chose its epoch; empty if it does not."""
    is_shared = checksums.validation == checksums.test != checksums.train
    if not is_shared or recipe.keep == "last":
        return {}
    return {
        "test rows": "those of --dev, which also chose the epoch, so the score is too high; "
        "--test FILE names others"
    }


def draw_training_rows(count: int, recipe: SequenceRecipe | Seq2SeqRecipe) -> Rows | None:
    """The training rows to keep if the recipe limits their number, else None."""
    return draw_rows(count, recipe.most_rows, derive_seed(recipe.seed, Purpose.DIVISION, 1))
