"""What a bundle says of the training its weights come from."""

from pathlib import Path

from weir.bundle.contract import Provenance
from weir.training.errors import TrainingError
from weir.training.run_directory import RunRecord
from weir.training.seq2seq.recipes import Seq2SeqRecipe
from weir.training.text.recipes import SequenceRecipe


def provenance_of(record: RunRecord) -> Provenance:
    """Recipe, data and what was measured, of the epoch whose weights were kept."""
    metrics = {"seconds": record.seconds, "epochs": float(len(record.epochs))}
    for epoch in record.epochs:
        if epoch.epoch == record.best_epoch:
            if epoch.validation_accuracy is None:
                metrics["validation_loss"] = epoch.validation_loss
            else:
                metrics["validation_accuracy"] = epoch.validation_accuracy
    if record.test_accuracy is not None:
        metrics["test_accuracy"] = record.test_accuracy
    metrics |= {f"test_{name}": value for name, value in record.test_metrics.items()}
    return Provenance(
        recipe=record.recipe.name,
        data=name_of(record),
        data_checksum=record.data.checksum,
        seed=record.seed,
        metrics=metrics,
    )


def random_examples(record: RunRecord, error: TrainingError) -> str:
    """What the examples are where a run's data cannot be had, and why; see `name_of`."""
    why, recipe = str(error).splitlines()[0], record.recipe
    files: tuple[str | None, ...] = ()
    if isinstance(recipe, SequenceRecipe | Seq2SeqRecipe):
        files = (recipe.dev, recipe.test)
    if isinstance(recipe, Seq2SeqRecipe):
        files += (recipe.target_data, recipe.dev_target, recipe.test_target)
    for path in (record.data.name, *files):
        if path:
            why = why.replace(path, Path(path).name)
    return f"random, without the data set: {why}"


def name_of(record: RunRecord) -> str:
    """The data's name only: where a folder lay on this machine concerns nobody else."""
    return Path(record.data.name).name
