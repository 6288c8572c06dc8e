"""`weir rollback`: an older version becomes the stable one."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from weir.cli.error_hints import connect, models_by_name, suggest_model_control, suggest_models
from weir.cli.models import OR_ON_DISK, OnDisk, how_long, serving_summary, when_effective
from weir.cli.options import ServerOptions, Timeout, takes_server
from weir.client import defaults
from weir.client.errors import FailedPrecondition, NotFound, UsageError

if TYPE_CHECKING:
    from weir.client.client import Client
    from weir.client.results import LabelChange, ModelInfo


@takes_server
def rollback(
    name: Annotated[str, typer.Argument(help="A model's name.")],
    *,
    models: OnDisk = None,
    server: ServerOptions,
    timeout: Timeout = defaults.LOADING_S,
) -> None:
    """Give the label "stable" to the next older version that loads, so that it answers.

    For good where versions.toml can be written; --models writes without a server.
    """
    from weir.cli.model_directory import roll_back

    if models is not None:
        former, older = roll_back(models, name)
        typer.echo(f"{name}: {former} -> {older}")
        typer.echo(when_effective(name))
        typer.echo(
            f"`weir models label {name} stable= --models {models}` lets the newest answer again, "
            f"`stable=N` version N"
        )
        return
    with connect(server) as client, suggest_model_control(OR_ON_DISK):
        with suggest_models(client, name):
            model = next((each for each in client.models() if each.name == name), None)
            if model is None:
                raise NotFound(f"unknown model {name!r}")
        older, change = _label_older(client, model, timeout)
    typer.echo(f"{name}: {model.answering or 'none'} -> {older} ({how_long(change)})")
    typer.echo(
        f"`weir models label {name} stable=` lets the newest answer again, `stable=N` version N"
    )


def _label_older(
    client: "Client", model: "ModelInfo", timeout_s: float
) -> "tuple[int, LabelChange]":
    """Label the next older version that loads; FailedPrecondition if none loads."""
    from weir.bundle.versions import STABLE

    for version in _older(model):
        try:
            return version, client.set_label(model.name, STABLE, version, timeout_s=timeout_s)
        except FailedPrecondition as error:
            reason = str(error)
            for what in ("stays", "is not set"):
                reason = reason.removeprefix(f"label {STABLE!r} {what}: ")
            sys.stderr.write(f"weir: {' '.join(reason.split())}\n")
    now = models_by_name(client).get(model.name, model)
    raise FailedPrecondition(
        f"{model.name}: no older version can be served; as before, {serving_summary(now)}"
    )


def _older(model: "ModelInfo") -> list[int]:
    """The versions older than the default one, the highest first; UsageError if there is none."""
    from weir.cli.model_directory import older_than

    on_disk = [int(version) for version in model.on_disk]
    # Without a default version, as after a start with a broken one, start below the newest.
    known = [*on_disk, *(int(each.version) for each in model.versions)]
    former = int(model.answering) if model.answering else max(known, default=0)
    older = older_than(former, on_disk)
    if not older:
        default = f"version {former}" if model.answering else "no version"
        raise UsageError(
            f"{model.name}: {default} answers, and on disk none is older than {former}"
        )
    return older
