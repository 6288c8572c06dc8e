"""`weir models` and `weir health`: what a server holds, and how it does."""

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from weir import defaults
from weir.commands.extras import requires
from weir.commands.options import AsJson, Target, Timeout
from weir.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from weir.client import Client

_COLOURS = {"READY": "green", "LOADING": "yellow", "UNLOADING": "yellow", "UNAVAILABLE": "red"}


def models(
    *,
    ready: Annotated[bool, typer.Option("--ready", help="Only models that are ready.")] = False,
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """List the models of a server, and why some are not ready."""
    with requires("client"):
        from weir.client import Client
    with Client(target, timeout_s=timeout) as client:
        entries = client.index(ready=ready)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(entry) for entry in entries]))
        return
    table = Table("model", "version", "state", "reason", title=f"models of {target}")
    for entry in entries:
        colour = _COLOURS.get(entry.state, "white")
        table.add_row(entry.name, entry.version, f"[{colour}]{entry.state}[/]", entry.reason)
    Console().print(table)


def health(
    *,
    service: Annotated[str, typer.Option(help="A model's name; else the server itself.")] = "",
    watch: Annotated[
        bool, typer.Option("--watch", help="Print each change until the server goes.")
    ] = False,
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
) -> None:
    """Say how a server or a model does: exit code 0 if it serves, 1 if not."""
    with requires("client"):
        from weir.client import Client
    with Client(target, timeout_s=timeout) as client:
        status = ""
        for status in _changes(client, service) if watch else [_check(client, service)]:
            typer.echo(status)
    raise typer.Exit(0 if status == "SERVING" else 1)


def _check(client: "Client", service: str) -> str:
    try:
        return client.health(service)
    except NotFound:
        return "SERVICE_UNKNOWN"
    except Unavailable as error:
        return f"UNREACHABLE: {error}"


def _changes(client: "Client", service: str) -> Iterator[str]:
    try:
        yield from client.watch(service)
    except Unavailable as error:
        yield f"UNREACHABLE: {error}"
