"""The command line of training: `python -m weir.training RECIPE …` and `weir train RECIPE …`.

The options for a recipe's settings are derived from the fields of the recipe classes that carry a
`CliOption`: name, type, help and group.
"""

import csv
import functools
import inspect
import logging
import os
import shlex
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.console import Console

from weir.training.console import ConsoleMonitor, print_result
from weir.training.data import DATA_SETS, PAIR_SETS, TEXT_SETS
from weir.training.data.series import SERIES_SETS
from weir.training.distributed import ProcessGroup, is_lost_peer, join
from weir.training.errors import (
    DistributedError,
    DownloadError,
    InterruptedRunError,
    TrainingError,
)
from weir.training.recipe import CliOption, Setting, Settings, cli_option
from weir.training.recipe_list import describe_recipe, describe_recipes, machine_factor
from weir.training.recipes import KINDS, MADE_FOR, RECIPES, class_of
from weir.training.reproducibility import DeviceName
from weir.training.train import TrainingOptions, run_training

FAILED, INTERRUPTED = 2, 130

COMMON_PANEL = "How to learn"
PANELS = {
    "images": "Pictures of a folder",
    "sequences": "Sequences",
    "pairs": "Sequence to sequence",
    "series": "Series",
}
"""Help groups of the settings, by the first kind of recipe that has them."""

Word: TypeAlias = str | int | float | bool | Path | tuple[float, float]
"""An option's value, as typer reads it."""


def main(args: list[str] | None = None, prog: str = "python -m weir.training") -> int:
    """Run the command line; return the exit code: 0 done, 2 a user error, 130 interrupted."""
    logging.basicConfig(format="%(message)s")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(_with_settings(train_command))
    try:
        typer.main.get_command(app)(args=args, prog_name=prog, obj=prog)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def train_command(
    context: typer.Context,
    recipe: Annotated[
        str | None, typer.Argument(help=f"One of: {', '.join(RECIPES)}.", show_default=False)
    ] = None,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help=f"Pictures: {', '.join(DATA_SETS)}, or a folder or tar file with a folder of "
            f"images for each class. Texts: {', '.join(TEXT_SETS)}, or a file of "
            f"LABEL<TAB>text, of token/TAG, or CoNLL-U. Pairs: {', '.join(PAIR_SETS)}, or a "
            "file of source<TAB>target, or of sources beside --target-data. Series: "
            f"{', '.join(SERIES_SETS)}, or a CSV file with a header. All but series: hf:NAME, a "
            "data set of the Hugging Face hub. Default: the first that RECIPE --list shows.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run directory. Default: runs/RECIPE-DATA.")
    ] = None,
    device: Annotated[
        DeviceName, typer.Option(help="auto takes CUDA if it is available.")
    ] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the interrupted run in --out.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.")
    ] = False,
    log: Annotated[
        Literal["tensorboard"] | None,
        typer.Option(
            help="Write the curves as TensorBoard's event file too, into the run directory."
        ),
    ] = None,
    list_recipes: Annotated[
        bool,
        typer.Option(
            "--list",
            help="Say what each recipe is for, the data it takes and its time; with RECIPE, its "
            "data sets and settings.",
        ),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Fewer rows and a smaller network: about a minute.",
            rich_help_panel=PANELS["sequences"],
        ),
    ] = False,
    log_gradients: Annotated[
        bool,
        typer.Option(
            "--log-gradients",
            help="Draw the gradient norm by time lag of RNN, GRU and LSTM on these data.",
            rich_help_panel=PANELS["sequences"],
        ),
    ] = False,
    **settings: Word | None,
) -> None:
    """Train a network and write a run directory: weights, record and figures.

    --list says which recipe takes your data, and how long it takes.

    Ctrl-C leaves a checkpoint; --resume continues to the same weights.
    """
    if list_recipes:
        raise typer.Exit(_list(recipe))
    if recipe is None or _is_data(recipe):
        said = _ask_for_recipe(recipe, str(context.obj))
        Console(stderr=True, soft_wrap=True).print(said, markup=False, highlight=False)
        raise typer.Exit(FAILED)
    options = TrainingOptions(
        recipe, data, out, device, resume, overwrite, quick, log_gradients, log
    )
    raise typer.Exit(_train(options, settings, str(context.obj)))


def _is_data(recipe: str) -> bool:
    return recipe not in RECIPES and Path(recipe).exists()


def _ask_for_recipe(data: str | None, prog: str) -> str:
    """Say what to type instead of no recipe, or of data in its place."""
    if data is None:
        return f"weir: expected a recipe; {prog} --list says which one takes your data"
    return (
        f"weir: expected {prog} RECIPE --data {shlex.quote(data)}, got the data alone; "
        f"{prog} --list says which recipe takes them"
    )


def _list(recipe: str | None) -> int:
    """Print all recipes, or one; return the exit code."""
    if recipe is None:
        Console().print(describe_recipes(machine_factor()))
        return 0
    try:
        class_of(recipe)
    except TrainingError as error:
        Console(stderr=True, soft_wrap=True).print(f"weir: {error}", markup=False, highlight=False)
        return FAILED
    Console().print(describe_recipe(recipe))
    return 0


def _train(options: TrainingOptions, settings: Mapping[str, Word | None], prog: str) -> int:
    """Train; print an expected failure as one line, and return the exit code."""
    errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    try:
        with join(os.environ) as group:
            return _train_in(group, options, settings, prog, errors)
    except DistributedError as error:
        errors.print(f"weir: {error}")
        return FAILED


def _train_in(
    group: ProcessGroup,
    options: TrainingOptions,
    settings: Mapping[str, Word | None],
    prog: str,
    errors: Console,
) -> int:
    """Train as one of the processes; of these, the first prints the result."""
    console = Console(quiet=not group.is_main)
    if not group.is_main:
        logging.getLogger("weir").setLevel(logging.ERROR)
    if group.world_size > 1:
        prog = f"torchrun --nproc-per-node {group.world_size} -m weir.training"
    monitor = ConsoleMonitor(console)

    def report(text: str) -> None:
        group.report_once(lambda: errors.print(text))

    try:
        options = replace(options, changes=changes_of(options.recipe, settings))
        with monitor.signals():
            record = run_training(options, monitor, group)
    except InterruptedRunError as error:
        report(f"{error}; to go on:\n  {_resume_command(options, prog)}")
        return INTERRUPTED
    except KeyboardInterrupt:
        report(
            "stopped at once; the checkpoint of the last epoch, if any, goes on with:\n"
            f"  {_resume_command(options, prog)}"
        )
        return INTERRUPTED
    except (TrainingError, OSError) as error:
        report(f"weir: {error}{_other_data(error, options)}")
        return FAILED
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        report("weir: another process of this run ended, so this one ends too")
        return FAILED
    print_result(console, record, options.directory)
    return 0


def _other_data(error: Exception, options: TrainingOptions) -> str:
    """Name the recipe's other data sets after a failed download; a resumed run keeps its own."""
    if not isinstance(error, DownloadError) or options.resume:
        return ""
    made_for = MADE_FOR[options.recipe]
    others = (name for name in made_for if name != (options.data or made_for[0]))
    return f"; or say --data with one of: {', '.join(others)}"


def _resume_command(options: TrainingOptions, prog: str) -> str:
    data = ["--data", options.data] if options.data else []
    device = ["--device", options.device] if options.device != "auto" else []
    log = ["--log", options.log] if options.log else []
    words = [options.recipe, *data, "--out", str(options.directory), *device, *log, "--resume"]
    return f"{prog} {shlex.join(words)}"


def changes_of(recipe: str, settings: Mapping[str, Word | None]) -> dict[str, Setting]:
    """Return the changes of a recipe that the options (None: not given) ask for, by group.

    A setting that the recipe lacks keeps the group of the recipes that have it, so that the error
    can name them.
    """
    kind = class_of(recipe)
    changes: dict[str, Any] = {}
    for name, word in settings.items():
        if word is None:
            continue
        uses = _settings()[name]
        use = next((use for use in uses if KINDS[use.kind] is kind), uses[0])
        group = changes
        for part in use.groups:
            group = group.setdefault(part, {})
        group[name] = _setting_of(word, use.field)
    return changes


def _setting_of(word: Word, field: FieldInfo) -> Setting:
    annotation = field.annotation
    if isinstance(word, Path):
        # In full, so that the run is readable from any directory.
        return str(word.resolve())
    if isinstance(word, str) and get_origin(annotation) is tuple:
        # Quotes as in a CSV file hold a name that has commas itself.
        names = next(csv.reader([word], skipinitialspace=True), [])
        return tuple(name.strip() for name in names)
    if isinstance(word, tuple):
        return dict(zip(_members(annotation), word, strict=True))
    return word


def _with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Replace the function's `**settings` by a parameter for each setting with a `CliOption`."""

    @functools.wraps(function)
    def command(**given: Any) -> None:
        function(**given)

    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind != each.VAR_KEYWORD]
    settings = [_parameter(name, uses) for name, uses in _settings().items()]
    # Typer shows groups in the order of their first options.
    last = own.index(signature.parameters["quick"])
    parameters = [*own[:last], *settings, *own[last:]]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


@dataclass(frozen=True, slots=True)
class _Use:
    """A setting with a `CliOption` in one kind of recipe; groups lead to it from the top."""

    kind: str
    groups: tuple[str, ...]
    field: FieldInfo
    option: CliOption


@functools.cache
def _settings() -> dict[str, list[_Use]]:
    """All settings with a `CliOption`, by name."""
    found: dict[str, list[_Use]] = {}
    for kind, recipe in KINDS.items():
        for name, use in _uses(kind, recipe):
            found.setdefault(name, []).append(use)
    return found


def _uses(kind: str, settings: Any, groups: tuple[str, ...] = ()) -> Iterator[tuple[str, _Use]]:
    for name, field in _members(settings).items():
        if option := cli_option(field):
            yield name, _Use(kind, groups, field, option)
        else:
            yield from _uses(kind, field.annotation, (*groups, name))


def _members(annotation: Any) -> dict[str, FieldInfo]:
    """Return the fields of a group of settings, which a recipe may lack; none for other types."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    group = kinds[0] if len(kinds) == 1 else annotation
    is_group = isinstance(group, type) and issubclass(group, Settings)
    return group.model_fields if is_group else {}


def _parameter(name: str, uses: list[_Use]) -> inspect.Parameter:
    """Return the command's parameter for a setting; the recipe checks its bounds later."""
    field, option = uses[0].field, uses[0].option
    panel = COMMON_PANEL if len(uses) == len(KINDS) else PANELS[uses[0].kind]
    typer_option = typer.Option(
        option.long_flag(name),
        metavar=option.metavar or _metavar(uses),
        help=_help(uses),
        rich_help_panel=panel,
        # A flag turns a setting that is on by default off.
        callback=(lambda is_given: None if is_given is None else False)
        if field.default is True
        else None,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[_word_type(field.annotation, option) | None, typer_option],
    )


def _word_type(annotation: Any, option: CliOption) -> Any:
    """Return the type that typer reads for a field's type."""
    if option.is_file:
        return Path
    if members := _members(annotation):
        return types.GenericAlias(tuple, tuple(each.annotation for each in members.values()))
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return str
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    return kinds[0] if kinds else annotation


def _metavar(uses: list[_Use]) -> str | None:
    """Name the value if it is a file, a choice or a group; typer names other types itself."""
    annotation = uses[0].field.annotation
    if uses[0].option.is_file:
        return "FILE"
    if members := _members(annotation):
        return " ".join(members).upper()
    if get_origin(annotation) is Literal:
        choices = [str(choice) for use in uses for choice in get_args(use.field.annotation)]
        return "|".join(dict.fromkeys(choices))
    return None


def _help(uses: list[_Use]) -> str:
    """Join the descriptions; each names its kinds of recipes if they differ."""
    kinds: dict[str, list[str]] = {}
    for use in uses:
        if use.field.description:
            kinds.setdefault(use.field.description, []).append(use.kind)
    texts = list(kinds)
    if len(kinds) > 1:
        texts = [f"{' and '.join(names)}: {text}" for text, names in kinds.items()]
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in texts)


if __name__ == "__main__":
    sys.exit(main())
