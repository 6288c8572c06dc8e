"""Provenance of a bundle's weights, and the description of a run's examples."""

from pathlib import Path

from weir.bundle.contract import Provenance, SplitChecksums
from weir.training.errors import TrainingError
from weir.training.recipe import cli_option
from weir.training.recipes import AnyRecipe, has_conllu
from weir.training.run_directory import RunRecord
from weir.training.seq2seq.recipes import Seq2SeqRecipe
from weir.training.text.recipes import SequenceRecipe


def provenance_of(record: RunRecord) -> Provenance:
    """Recipe, data, and the metrics of the epoch whose weights were kept.

    If a series kept others than the trained weights, nothing was measured of them but the test.
    """
    is_trained = record.series is None or record.series.trained_share == 1.0
    metrics = {"seconds": record.seconds, "epochs": float(len(record.epochs))}
    for epoch in record.epochs:
        if epoch.epoch == record.best_epoch and is_trained:
            if epoch.validation_accuracy is None:
                metrics["validation_loss"] = epoch.validation_loss
            else:
                metrics["validation_accuracy"] = epoch.validation_accuracy
            if epoch.validation_macro_f1 is not None:
                metrics["validation_macro_f1"] = epoch.validation_macro_f1
    if record.test_accuracy is not None:
        metrics["test_accuracy"] = record.test_accuracy
    metrics |= {f"test_{name}": value for name, value in record.test_metrics.items()}
    splits = record.data.split_checksums
    return Provenance(
        recipe=record.recipe.name,
        data=data_name(record),
        data_checksum=record.data.checksum,
        split_checksums=SplitChecksums(**splits.model_dump()) if splits else None,
        row_settings=_row_settings(record.recipe),
        seed=record.seed,
        metrics=metrics,
    )


def _row_settings(recipe: AnyRecipe) -> dict[str, str | int | bool]:
    """The settings that decide which rows and targets are read of the recipe's data."""
    names = {
        name
        for name, field in type(recipe).model_fields.items()
        if (option := cli_option(field)) and option.data_set == recipe.data
    }
    if isinstance(recipe, SequenceRecipe) and has_conllu(recipe.data, recipe.dev, recipe.test):
        names.add("column")
    if isinstance(recipe, Seq2SeqRecipe) and recipe.most_characters is not None:
        names.add("most_characters")
    return recipe.model_dump(include=names)


def describe_random(record: RunRecord, error: TrainingError) -> str:
    """The description of random examples, with the reason why the run's data are missing.

    Directories are removed from the paths in the reason: a bundle names no local paths.
    """
    reason, recipe = str(error).splitlines()[0], record.recipe
    files: tuple[str | None, ...] = ()
    if isinstance(recipe, SequenceRecipe | Seq2SeqRecipe):
        files = (recipe.dev, recipe.test)
    if isinstance(recipe, Seq2SeqRecipe):
        files += (recipe.target_data, recipe.dev_target, recipe.test_target)
    for path in (record.data.name, *files):
        if path:
            reason = reason.replace(path, Path(path).name)
    return f"random, without the data set: {reason}"


def test_name(record: RunRecord) -> str:
    """The name of the file or data set with the test rows, without the directory."""
    recipe = record.recipe
    own = getattr(recipe, "test", None) or getattr(recipe, "dev", None)
    return Path(own).name if own else data_name(record)


def data_name(record: RunRecord) -> str:
    """The name of the run's data, without the directory."""
    return Path(record.data.name).name
