"""`weir rollback`: a version before the one that answers becomes the stable one."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weir.cli.advice import listed, models_of
from weir.cli.changing import OTHERWISE, OnDisk, control, standing
from weir.cli.extras import requires
from weir.cli.label import FOR_NOW, when
from weir.cli.options import Target, Timeout
from weir.client import defaults
from weir.client.errors import FailedPrecondition, NotFound, UsageError

if TYPE_CHECKING:
    from weir.client.client import Client
    from weir.client.results import ModelInfo


def rollback(
    name: Annotated[str, typer.Argument(help="A model's name.")],
    *,
    models: OnDisk = None,
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.LOADING_S,
) -> None:
    """Let the next older version that can be served answer instead, by the label "stable".

    For as long as the server runs, or for good with --models.
    """
    if models is None:
        _by_call(name, target, timeout)
    else:
        _on_disk(name, models)


def _on_disk(name: str, models: Path) -> None:
    from weir.cli.labels import roll_back

    former, older = roll_back(models, name)
    typer.echo(f"{name}: {former} -> {older}")
    typer.echo(when(name))
    typer.echo(
        f"`weir models label {name} stable= --models {models}` lets the newest answer again, "
        f"`stable=N` version N"
    )


def _by_call(name: str, target: str, timeout: float) -> None:
    with requires("client"):
        from weir.client.client import Client

    with Client(target) as client, control(OTHERWISE):
        model = _find(client, name)
        older = _go_back(client, model, timeout)
    typer.echo(f"{name}: {model.answering or 'none'} -> {older} ({FOR_NOW})")
    typer.echo(
        f"`weir models label {name} stable=` ends that, "
        f"`weir models label {name} stable=N` lets version N answer"
    )


def _find(client: "Client", name: str) -> "ModelInfo":
    with listed(client, name):
        for model in client.models():
            if model.name == name:
                return model
        raise NotFound(f"unknown model {name!r}")


def _go_back(client: "Client", model: "ModelInfo", timeout: float) -> int:
    """Make the next older version that can be served the stable one; FailedPrecondition if none can."""
    from weir.bundle.versions import STABLE

    for version in _older(model):
        try:
            client.set_label(model.name, STABLE, version, timeout_s=timeout)
        except FailedPrecondition as error:
            reason = str(error).removeprefix(f"label {STABLE!r} stays: ")
            sys.stderr.write(f"weir: {' '.join(reason.split())}\n")
        else:
            return version
    now = models_of(client).get(model.name, model)
    raise FailedPrecondition(
        f"{model.name}: no older version can be served; as before, {standing(now)}"
    )


def _older(model: "ModelInfo") -> list[int]:
    """The versions one may go back to, the highest first; UsageError if there is none."""
    from weir.cli.labels import older_than

    on_disk = [int(version) for version in model.on_disk]
    # Where none answers, as after a start with a broken one, the newest is what one wants to leave.
    known = [*on_disk, *(int(one.version) for one in model.versions)]
    former = int(model.answering) if model.answering else max(known, default=0)
    older = older_than(former, on_disk)
    if not older:
        who = f"version {former}" if model.answering else "no version"
        raise UsageError(f"{model.name}: {who} answers, and on disk none is older than {former}")
    return older
