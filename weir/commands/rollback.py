"""`weir rollback`: the version before the one that answers becomes the stable one."""

from typing import Annotated

import typer

from weir import defaults
from weir.commands.changing import OTHERWISE, OnDisk, control
from weir.commands.extras import requires
from weir.commands.options import Target, Timeout
from weir.errors import UsageError


def rollback(
    name: Annotated[str, typer.Argument(help="A model's name.")],
    *,
    models: OnDisk = None,
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.LOADING_S,
) -> None:
    """Let the version below the one that answers answer instead, by the label "stable".

    For as long as the server runs, or for good with --models.
    """
    if models is None:
        former, older = _on_server(name, target, timeout)
        undo = f"weir models label {name} stable="
    else:
        from weir.labels import roll_back

        former, older = roll_back(models, name)
        undo = f"weir models label {name} stable= --models {models}"
    typer.echo(f"{name}: {former} -> {older}; `{undo}` lets the newest answer again")


def _on_server(name: str, target: str, timeout: float) -> tuple[int, int]:
    """The version that answered, and the one that does now."""
    with requires("client"):
        from weir.client import Client
    from bundle.versions import STABLE
    from weir.labels import older_than

    with Client(target) as client, control(OTHERWISE):
        found = {model.name: model for model in client.models()}
        if name not in found:
            listed = ", ".join(sorted(found)) or "none"
            raise UsageError(f"expected a model among {listed}, got {name!r}")
        if not found[name].answering:
            raise UsageError(f"{name}: no version answers, so there is none to go back from")
        answering = int(found[name].answering)
        older = older_than(name, answering, [int(version) for version in found[name].on_disk])
        client.set_label(name, STABLE, older, timeout_s=timeout)
    return answering, older
