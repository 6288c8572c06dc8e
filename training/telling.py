"""What the command line prints: the recipes there are, and how a run came out."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from weir.training.forecasting.evaluation import tell as tell_series
from weir.training.recipes import MADE_FOR, make_recipe
from weir.training.run_directory import RunRecord
from weir.training.seq2seq.evaluation import tell as tell_pairs
from weir.training.seq2seq.recipe import Seq2SeqRecipe


def recipe_table() -> Table:
    """Every recipe with each of the data sets it is made for."""
    table = Table("recipe", "data", "epochs", "batch size", "optimizer", "learning rate")
    for name, sets in MADE_FOR.items():
        for data in sets:
            recipe = make_recipe(name, data)
            rate = f"{recipe.optimizer.learning_rate:g}"
            sizes = (str(recipe.epochs), str(recipe.batch_size))
            table.add_row(name, data, *sizes, recipe.optimizer.kind, rate)
    return table


def print_result(console: Console, record: RunRecord, out: Path) -> None:
    """What the test said, on how much, and where the run lies."""
    best = record.epochs[record.best_epoch - 1]
    what = "pictures" if record.image else "rows"
    validated = (
        f"loss {best.validation_loss:.4f}"
        if best.validation_accuracy is None
        else f"{best.validation_accuracy:.2%}"
    )
    # Names of data, classes and columns may have brackets.
    console.print(
        f"{tested(record)} on {record.data.test_rows:,} {what} "
        f"(validation {validated} in epoch {best.epoch} of {len(record.epochs)}, "
        f"{record.seconds:.1f} s)",
        *(f"{name}: {text}" for name, text in record.test_notes.items()),
        f"run: {out}",
        sep="\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def tested(record: RunRecord) -> str:
    """What the test came to, in the words of the run's task."""
    if record.series:
        return tell_series(record.test_metrics)
    if isinstance(record.recipe, Seq2SeqRecipe):
        return tell_pairs(record.test_metrics, record.recipe)
    accuracy = "not tested" if record.test_accuracy is None else f"{record.test_accuracy:.2%}"
    more = "".join(
        f", {name.replace('_', ' ')} {value:.2%}" for name, value in record.test_metrics.items()
    )
    return f"test accuracy {accuracy}{more}"
