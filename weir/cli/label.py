"""`weir models label`: names for versions, and which of them answers."""

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from weir.cli.advice import listed, models_of
from weir.cli.changing import OTHERWISE, OnDisk, control, each
from weir.cli.extras import requires
from weir.cli.options import Target, Timeout
from weir.client import defaults

if TYPE_CHECKING:
    from weir.client.client import Client

FOR_NOW = "until the server stops; for good: --models DIR"


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
    Without --models, LABEL= ends what was said by call: then versions.toml counts again.
    """
    from weir.cli import labels

    wanted = labels.parse_assignments(assignments)
    _remark(given for given, version in wanted.items() if version is not None)
    if models is None:
        _by_call(name, wanted, target, timeout)
        return
    labels.set_labels(models, name, wanted)
    for given, version in wanted.items():
        typer.echo(_labelled(name, given, version))
    typer.echo(when(name))


def when(name: str) -> str:
    """When a server follows what was written into a model's directory."""
    return (
        "a server with --model-control poll follows by itself, one with explicit at "
        f"`weir models load {name}`, one with none when it starts again"
    )


def _by_call(name: str, wanted: Mapping[str, int | None], target: str, timeout: float) -> None:
    with requires("client"):
        from weir.client.client import Client
    with Client(target) as client, control(OTHERWISE):

        def ask(given: str) -> str:
            version = wanted[given]
            with listed(client, name):
                client.set_label(name, given, version, timeout_s=timeout)
            if version is None:
                return _ended(client, name, given)
            return f"{_labelled(name, given, version)} ({FOR_NOW})"

        each(list(wanted), ask, f"labelling {name}", "labels could not be set")


def _ended(client: "Client", name: str, given: str) -> str:
    """What became of a label now that no call sets it any longer."""
    model = models_of(client).get(name)
    for one in model.versions if model else ():
        if given in one.labels:
            return f"{name}: {given} -> {one.version}, as its versions.toml says"
    return _labelled(name, given, None)


def _remark(labels: Iterable[str]) -> None:
    """Say of what looks like a misspelt `stable` that it is not that."""
    from weir.bundle.versions import STABLE

    for given in labels:
        if STABLE not in given and get_close_matches(given.lower(), [STABLE], cutoff=0.8):
            sys.stderr.write(f"weir: {given}: a label like any other; is {STABLE!r} meant?\n")


def _labelled(name: str, given: str, version: int | None) -> str:
    return f"{name}: {given} removed" if version is None else f"{name}: {given} -> {version}"
