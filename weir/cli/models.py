"""`weir models`: what a server holds."""

import json
from typing import Annotated

import typer
from rich.console import Console

from weir.cli.extras import requires
from weir.cli.label import label
from weir.cli.loading import load, reload, unload
from weir.cli.options import AsJson, Target, Timeout
from weir.client import defaults
from weir.client.errors import Unimplemented, UsageError


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
        from weir.cli import listing
        from weir.client.client import Client
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


def _refuse_options(context: typer.Context) -> None:
    """Raise UsageError where an option of the list stands before a subcommand, which would not see it."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--json" if name == "as_json" else f"--{name}"
            raise UsageError(f"{option}: expected behind {context.invoked_subcommand}, got before")
