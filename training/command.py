"""The command line of training: `python -m weir.training RECIPE …`, which is `weir train RECIPE …` too."""

import logging
import shlex
from typing import Annotated

import typer
from rich.console import Console

from weir.training import options
from weir.training.changes import changes_of, names_in, schedule_of
from weir.training.console import Watch
from weir.training.errors import DownloadError, InterruptedRunError, TrainingError
from weir.training.recipes import MADE_FOR
from weir.training.start import Order, start
from weir.training.telling import print_result, recipe_table

FAILED, INTERRUPTED = 2, 130

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main(args: list[str] | None = None, prog: str = "python -m weir.training") -> int:
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
    if wanted:
        Console().print(recipe_table())
        raise typer.Exit


@app.command()
def train_by_recipe(
    context: typer.Context,
    recipe: options.Recipe,
    *,
    data: options.Data = None,
    out: options.Out = None,
    device: options.Device = "auto",
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    seed: options.Seed = None,
    height: options.Height = None,
    width: options.Width = None,
    channels: options.Channels = None,
    short_side: options.ShortSide = None,
    cell: options.Cell = None,
    hidden: options.Hidden = None,
    layers: options.Layers = None,
    pool: options.Pool = None,
    truncate_steps: options.TruncateSteps = None,
    column: options.Column = None,
    dev: options.Dev = None,
    test: options.Test = None,
    target_data: options.TargetData = None,
    dev_target: options.DevTarget = None,
    test_target: options.TestTarget = None,
    with_stress: options.WithStress = False,
    source_language: options.SourceLanguage = None,
    target_language: options.TargetLanguage = None,
    teacher_forcing: options.TeacherForcing = None,
    beam: options.Beam = None,
    no_attention: options.NoAttention = False,
    value: options.Value = None,
    exogenous: options.Exogenous = None,
    lags: options.Lags = None,
    exogenous_lags: options.ExogenousLags = None,
    horizon: options.Horizon = None,
    quick: options.Quick = False,
    log_gradients: options.LogGradients = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    _list: Annotated[
        bool,
        typer.Option("--list", callback=_print_recipes, is_eager=True, help="Show all recipes."),
    ] = False,
) -> None:
    """Train a network and leave a run directory: weights, record, learning curve, confusion matrix.

    Ctrl-C leaves a checkpoint after the running step; --resume goes on from there to the same weights.
    """
    given = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "height": height,
        "width": width,
        "channels": channels,
        "short_side": short_side,
        "cell": cell,
        "hidden": hidden,
        "layers": layers,
        "pool": pool,
        "truncate_steps": truncate_steps,
        "column": column,
        "dev": dev,
        "test": test,
        "target_data": target_data,
        "dev_target": dev_target,
        "test_target": test_target,
        "stress": with_stress or None,
        "source_language": source_language,
        "target_language": target_language,
        "forcing": schedule_of(teacher_forcing),
        "beam_width": beam,
        "attends": False if no_attention else None,
        "value": value,
        "exogenous": names_in(exogenous),
        "lags": lags,
        "exogenous_lags": exogenous_lags,
        "horizon": horizon,
    }
    order = Order(
        recipe=recipe,
        data=data,
        out=out,
        device=device,
        resume=resume,
        overwrite=overwrite,
        quick=quick,
        log_gradients=log_gradients,
        changes=changes_of(recipe, given),
    )
    raise typer.Exit(_run(order, str(context.obj)))


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
        errors.print(f"error: {error}{_way_round(error, order)}")
        return FAILED
    print_result(console, record, order.directory)
    return 0


def _way_round(error: Exception, order: Order) -> str:
    """What else to train on where data could not be fetched; a resumed run keeps its own."""
    if not isinstance(error, DownloadError) or order.resume:
        return ""
    made_for = MADE_FOR[order.recipe]
    others = (name for name in made_for if name != (order.data or made_for[0]))
    return f"; or say --data with one of: {', '.join(others)}"


def _resume_command(order: Order, prog: str) -> str:
    data = ["--data", order.data] if order.data else []
    device = ["--device", order.device] if order.device != "auto" else []
    words = [order.recipe, *data, "--out", str(order.directory), *device, "--resume"]
    return f"{prog} {shlex.join(words)}"
