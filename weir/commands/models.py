"""`weir models`: what a server holds, and what it is told to load, to unload and to call stable."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from weir import defaults
from weir.commands.extras import requires
from weir.commands.many import Outcome, raise_failures
from weir.commands.options import AsJson, Target, Timeout
from weir.errors import CallError, Unimplemented, Unreachable, UsageError

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of models.")]
OTHERWISE = ", or give --models"

OnDisk = Annotated[
    Path | None,
    typer.Option(
        "--models",
        metavar="DIR",
        help="Write NAME/versions.toml of this repository and ask no server; comments in it are lost.",
    ),
]


def models_app() -> typer.Typer:
    """The verb with its subcommands."""
    app = typer.Typer()
    app.callback(invoke_without_command=True)(models)
    for verb in (load, unload, reload, label):
        app.command()(verb)
    return app


def models(
    context: typer.Context,
    *,
    ready: Annotated[bool, typer.Option("--ready", help="Only versions that are ready.")] = False,
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """List a server's models, and why some are not ready; load, unload and label them."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    with requires("client"):
        from weir.client import Client
        from weir.commands import listing
    with Client(target, timeout_s=timeout) as client:
        try:
            found = listing.of_models(client.models())
        except Unimplemented:
            found = listing.of_index(client.index())
    shown = [one for one in found if one.state == "READY" or not ready]
    if as_json:
        typer.echo(json.dumps(listing.plain(shown)))
    elif shown:
        listing.show(shown, target, Console())
    else:
        typer.echo(f"no models {'that are ready ' if ready else ''}at {target}")


def load(
    names: Names, *, target: Target = defaults.TARGET, timeout: Timeout = defaults.LOADING_S
) -> None:
    """Bring what is on disk of models into service; versions that serve unchanged stay as they are.

    Exit code 1 if one of them could not be loaded.
    """
    with requires("client"):
        from weir.client import Client
    with Client(target) as client, control():

        def ask(name: str) -> str:
            client.load(name, timeout_s=timeout)
            return f"{name}: loaded"

        _each(names, ask, "loading", "models could not be loaded")


def unload(
    names: Names, *, target: Target = defaults.TARGET, timeout: Timeout = defaults.LOADING_S
) -> None:
    """Take models out of service, once what they have been asked already is answered."""
    with requires("client"):
        from weir.client import Client
    with Client(target) as client, control():

        def ask(name: str) -> str:
            client.unload(name, timeout_s=timeout)
            return f"{name}: unloaded"

        _each(names, ask, "unloading", "models could not be unloaded")


def reload(
    names: Names, *, target: Target = defaults.TARGET, timeout: Timeout = defaults.LOADING_S
) -> None:
    """Load models anew, also versions that have not changed; the old ones answer until then."""
    with requires("client"):
        from weir.client import Client
    with Client(target) as client, control():

        def ask(name: str) -> str:
            client.load(name, reload=True, timeout_s=timeout)
            return f"{name}: reloaded"

        _each(names, ask, "reloading", "models could not be reloaded")


def label(
    name: Annotated[str, typer.Argument(help="A model's name.")],
    assignments: Annotated[
        list[str], typer.Argument(metavar="LABEL=VERSION...", help="LABEL= removes the label.")
    ],
    *,
    models: OnDisk = None,
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.LOADING_S,
) -> None:
    """Give labels to versions of a model: until the server stops, or for good with --models.

    A labelled version is served, whatever the policy says.
    The one called "stable" answers requests that name none.
    """
    from weir import labels

    wanted = labels.parse_assignments(assignments)
    if models is not None:
        labels.set_labels(models, name, wanted)
        for given, version in wanted.items():
            typer.echo(_labelled(name, given, version))
        return
    with requires("client"):
        from weir.client import Client
    with Client(target) as client, control(OTHERWISE):

        def ask(given: str) -> str:
            client.set_label(name, given, wanted[given], timeout_s=timeout)
            return _labelled(name, given, wanted[given])

        _each(list(wanted), ask, f"labelling {name}", "labels could not be set")


@contextmanager
def control(otherwise: str = "") -> Iterator[None]:
    """Tell of a server that takes no such calls how one does, and what to do without."""
    try:
        yield
    except Unimplemented as error:
        raise Unimplemented(
            f"the server takes no control calls: start it with `weir serve --control explicit`{otherwise}"
        ) from error


def _refuse_options(context: typer.Context) -> None:
    """Raise UsageError where an option of the list stands before a subcommand, which would not see it."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--json" if name == "as_json" else f"--{name}"
            raise UsageError(f"{option}: expected behind {context.invoked_subcommand}, got before")


def _each(items: Sequence[str], ask: Callable[[str], str], doing: str, what: str) -> None:
    """Ask for each, and print what it came to; WeirError at the end if any failed."""
    console = Console(stderr=True)
    outcomes: list[Outcome[str, str]] = []
    for item in items:
        with console.status(f"{doing} {item}"):
            outcomes.append(_outcome(ask, item))
        if outcomes[-1].answer is not None:
            typer.echo(outcomes[-1].answer)
    raise_failures(outcomes, what)


def _outcome(ask: Callable[[str], str], item: str) -> Outcome[str, str]:
    try:
        return Outcome(item, ask(item))
    except (Unreachable, Unimplemented):
        # So it would be for each of them.
        raise
    except CallError as error:
        reason = str(error).removeprefix(f"model {item!r}: ")
        return Outcome(item, failure=" ".join(reason.split()))


def _labelled(name: str, given: str, version: int | None) -> str:
    return f"{name}: {given} removed" if version is None else f"{name}: {given} -> {version}"
