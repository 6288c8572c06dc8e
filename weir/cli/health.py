"""`weir health`: the health of a server or of a model."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from weir.cli.error_hints import connect
from weir.cli.options import Target, Timeout
from weir.client import defaults
from weir.client.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from weir.client.client import Client

_UNKNOWN = "SERVICE_UNKNOWN"


def health(
    *,
    service: Annotated[str, typer.Option(help="A model's name; by default the server.")] = "",
    watch: Annotated[
        bool, typer.Option("--watch", help="Print each change until the server stops.")
    ] = False,
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
) -> None:
    """Print the health of a server or a model.

    Exit code 0 if it serves, 3 if not or if the server is unreachable, 1 if the model is unknown.
    """
    with connect(target, timeout) as client:
        status = ""
        for status in _statuses(client, service, watch=watch):
            typer.echo(status)
        if status == "NOT_SERVING" and not service and not watch:
            sys.stderr.write(_reason(client))
    raise typer.Exit({"SERVING": 0, _UNKNOWN: 1}.get(status, 3))


def _reason(client: "Client") -> str:
    """Why a server does not serve, as a line; empty if its models do not say it."""
    from weir.client.errors import CallError

    try:
        states = {each.state for model in client.models() for each in model.versions}
    except CallError:
        return ""
    if "READY" in states:
        # It is stopping.
        return ""
    if not states:
        return "weir: the server has no model\n"
    what = "the models are loading" if "LOADING" in states else "no model is ready"
    return f"weir: {what}: see `weir models`\n"


def _statuses(client: "Client", service: str, *, watch: bool) -> Iterator[str]:
    try:
        yield from client.watch(service) if watch else [client.health(service)]
    except NotFound:
        yield _UNKNOWN
    except Unavailable as error:
        yield f"UNREACHABLE: {error}"
