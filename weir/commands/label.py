"""`weir models label`: names for versions, and which of them answers."""

from typing import Annotated

import typer

from weir import defaults
from weir.commands.changing import OTHERWISE, OnDisk, control, each
from weir.commands.extras import requires
from weir.commands.options import Target, Timeout


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

        each(list(wanted), ask, f"labelling {name}", "labels could not be set")


def _labelled(name: str, given: str, version: int | None) -> str:
    return f"{name}: {given} removed" if version is None else f"{name}: {given} -> {version}"
