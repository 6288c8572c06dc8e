"""The command line of training: `python -m training RECIPE …`, which is `weir train RECIPE …` too."""

import logging
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.data import DATA_SETS, TEXT_SETS
from training.device import DeviceName
from training.errors import InterruptedRunError, TrainingError
from training.recipe import Setting
from training.recipes import RECIPES, make_recipe
from training.run import RunRecord
from training.start import Order, start
from training.watch import Watch

FAILED, INTERRUPTED = 2, 130
LEARNING = "How to learn"
PICTURES = "Pictures of a folder"
SEQUENCES = "Sequences"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main(args: list[str] | None = None, prog: str = "python -m training") -> int:
    """Run the command line.

    Args:
        args: without the program's name; none takes the process's.
        prog: what the user typed before them.

    Returns:
        The exit code: 0 done, 2 a mistake of the caller's, 130 interrupted.
    """
    logging.basicConfig(format="%(message)s")
    try:
        typer.main.get_command(app)(args=args, prog_name=prog, obj=prog)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _print_recipes(wanted: bool) -> None:  # noqa: FBT001  typer calls it so
    if not wanted:
        return
    table = Table("recipe", "data", "epochs", "batch size", "optimizer", "learning rate")
    for name in RECIPES:
        for data in sets_of(name):
            recipe = make_recipe(name, data)
            rate = f"{recipe.optimizer.learning_rate:g}"
            sizes = (str(recipe.epochs), str(recipe.batch_size))
            table.add_row(name, data, *sizes, recipe.optimizer.kind, rate)
    Console().print(table)
    raise typer.Exit


@app.command()
def train_by_recipe(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help=f"One of: {', '.join(RECIPES)}.")],
    *,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help=f"Pictures: {', '.join(DATA_SETS)}, or a folder or tar file with a folder of images for each class. "
            f"Texts: {', '.join(TEXT_SETS)}, or a file of LABEL<TAB>text, of token/TAG, or CoNLL-U. "
            "Without it: the first that --list shows.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run directory; without it: runs/RECIPE-DATA.")
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="auto takes CUDA where it is.")] = "auto",
    epochs: Annotated[int | None, typer.Option(rich_help_panel=LEARNING)] = None,
    batch_size: Annotated[int | None, typer.Option(rich_help_panel=LEARNING)] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="At its peak.", rich_help_panel=LEARNING)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides weights, order and distortions.", rich_help_panel=LEARNING),
    ] = None,
    height: Annotated[int | None, typer.Option(rich_help_panel=PICTURES)] = None,
    width: Annotated[int | None, typer.Option(rich_help_panel=PICTURES)] = None,
    channels: Annotated[
        int | None, typer.Option(help="1 grey, 3 colour.", rich_help_panel=PICTURES)
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            help="Resize in proportion to this and cut the middle out; without it: stretch.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    cell: Annotated[
        str | None, typer.Option(help="rnn, gru, lstm or tdnn.", rich_help_panel=SEQUENCES)
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(help="Units of a layer.", rich_help_panel=SEQUENCES)
    ] = None,
    layers: Annotated[int | None, typer.Option(rich_help_panel=SEQUENCES)] = None,
    pool: Annotated[
        str | None,
        typer.Option(help="Classify by the last state, or by the mean.", rich_help_panel=SEQUENCES),
    ] = None,
    truncate_steps: Annotated[
        int | None,
        typer.Option(
            help="Through how many steps the gradient flows at most.", rich_help_panel=SEQUENCES
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="Of CoNLL-U: upos, xpos, deprel or feats:NAME.", rich_help_panel=SEQUENCES
        ),
    ] = None,
    dev: Annotated[
        Path | None,
        typer.Option(help="A file to choose the best epoch by.", rich_help_panel=SEQUENCES),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="A file to test on; without it: --dev.", rich_help_panel=SEQUENCES),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Fewer rows, a smaller network, a minute.", rich_help_panel=SEQUENCES
        ),
    ] = False,
    log_gradients: Annotated[
        bool,
        typer.Option(
            "--log-gradients",
            help="Draw how far back in time RNN, GRU and LSTM learn on these data.",
            rich_help_panel=SEQUENCES,
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run in --out was interrupted.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.")
    ] = False,
    _list: Annotated[
        bool,
        typer.Option("--list", callback=_print_recipes, is_eager=True, help="Show all recipes."),
    ] = False,
) -> None:
    """Train a network and leave a run directory: weights, record, learning curve, confusion matrix.

    Ctrl-C leaves a checkpoint after the running step; --resume goes on from there to the same weights.
    """
    changes = _given(
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        column=column,
        dev=_path(dev),
        test=_path(test),
    ) | _nested(
        optimizer=_given(learning_rate=learning_rate),
        image=_given(height=height, width=width, channels=channels, short_side=short_side),
        encoder=_given(
            cell=cell, hidden=hidden, layers=layers, pool=pool, truncate_steps=truncate_steps
        ),
    )
    order = Order(
        recipe=recipe,
        data=data,
        out=out,
        device=device,
        resume=resume,
        overwrite=overwrite,
        quick=quick,
        log_gradients=log_gradients,
        changes=changes,
    )
    raise typer.Exit(_run(order, str(context.obj)))


def sets_of(recipe: str) -> tuple[str, ...]:
    """The data sets a recipe is made for, its default first, and what stands for a file or folder of yours."""
    match recipe:
        case "row-digits":
            return ("digits", "mnist", "fashion-mnist")
        case "question":
            return ("trec", "trec-fine", "PATH")
        case "tagger":
            return ("ewt", "PATH")
        case "stress":
            return ("cmudict-stress", "PATH")
    return (*DATA_SETS, "PATH")


def _path(file: Path | None) -> str | None:
    """In full, so that the run can be read from anywhere."""
    return None if file is None else str(file.resolve())


def _given(**options: float | str | None) -> dict[str, Setting]:
    return {name: value for name, value in options.items() if value is not None}


def _nested(**groups: dict[str, Setting]) -> dict[str, Setting]:
    return {name: group for name, group in groups.items() if group}


def _run(order: Order, prog: str) -> int:
    """Carry the order out; what goes wrong becomes one line and an exit code."""
    console, errors = Console(), Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    watch = Watch(console)
    try:
        with watch.signals():
            record = start(order, watch)
    except InterruptedRunError as error:
        errors.print(f"{error}; to go on:\n  {_resume_command(order, prog)}")
        return INTERRUPTED
    except KeyboardInterrupt:
        errors.print(
            f"stopped at once; what the last epoch left, if any, goes on with:\n  {_resume_command(order, prog)}"
        )
        return INTERRUPTED
    except (TrainingError, OSError) as error:
        errors.print(f"error: {error}")
        return FAILED
    _print_result(console, record, order.directory)
    return 0


def _resume_command(order: Order, prog: str) -> str:
    data = ["--data", order.data] if order.data else []
    device = ["--device", order.device] if order.device != "auto" else []
    words = [order.recipe, *data, "--out", str(order.directory), *device, "--resume"]
    return f"{prog} {shlex.join(words)}"


def _print_result(console: Console, record: RunRecord, out: Path) -> None:
    best = record.epochs[record.best_epoch - 1]
    tested = "not tested" if record.test_accuracy is None else f"{record.test_accuracy:.2%}"
    more = "".join(
        f", {name.replace('_', ' ')} {value:.2%}" for name, value in record.test_metrics.items()
    )
    what = "pictures" if record.image else "rows"
    console.print(
        f"test accuracy {tested}{more} on {record.data.test_rows:,} {what} "
        f"(validation {best.validation_accuracy:.2%} in epoch {best.epoch} of {len(record.epochs)}, "
        f"{record.seconds:.1f} s)\nrun: {out}",
        highlight=False,
        soft_wrap=True,
    )
