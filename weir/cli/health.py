"""`weir health`: the health of a server or of a model."""

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
    raise typer.Exit({"SERVING": 0, _UNKNOWN: 1}.get(status, 3))


def _statuses(client: "Client", service: str, *, watch: bool) -> Iterator[str]:
    try:
        yield from client.watch(service) if watch else [client.health(service)]
    except NotFound:
        yield _UNKNOWN
    except Unavailable as error:
        yield f"UNREACHABLE: {error}"
