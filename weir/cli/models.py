"""`weir models`: list, load, reload, unload and label the models of a server."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from weir.cli.error_hints import (
    connect,
    models_by_name,
    requires,
    suggest_model_control,
    suggest_models,
)
from weir.cli.fan_out import Outcome, raise_failures
from weir.cli.options import AsJson, ServerOptions, Timeout, reflowed, takes_server
from weir.client import defaults
from weir.client.errors import (
    CallError,
    HandshakeFailed,
    Unauthenticated,
    Unimplemented,
    Unreachable,
    UsageError,
)

if TYPE_CHECKING:
    from weir.client.client import Client
    from weir.client.results import LabelChange, ModelInfo, VersionInfo

OR_ON_DISK = ", or give --models"

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of models.")]
OnDisk = Annotated[
    Path | None,
    typer.Option(
        "--models",
        metavar="DIR",
        help="Edit NAME/versions.toml in this repository instead of calling a server.",
    ),
]


def models_app() -> typer.Typer:
    """The verb with its subcommands."""
    app = typer.Typer()
    app.callback(invoke_without_command=True)(models)
    for verb in (load, unload, reload, label):
        app.command(help=reflowed(verb))(verb)
    return app


@takes_server
def models(
    context: typer.Context,
    *,
    ready: Annotated[bool, typer.Option("--ready", help="Only ready versions.")] = False,
    server: ServerOptions,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """List a server's models, and why some are not ready; load, unload and label them."""
    if context.invoked_subcommand is not None:
        _require_no_options(context)
        return
    with requires("client"):
        from weir.cli import model_table
    with connect(server, timeout) as client:
        try:
            rows = model_table.from_models(client.models())
        except Unimplemented:
            rows = model_table.from_index(client.index())
    shown = [row for row in rows if row.state == "READY" or not ready]
    if as_json:
        typer.echo(json.dumps(model_table.to_json(shown)))
    elif shown:
        model_table.show(shown, server.target, Console())
    else:
        typer.echo(f"no models {'that are ready ' if ready else ''}at {server.target}")


@takes_server
def load(names: Names, *, server: ServerOptions, timeout: Timeout = defaults.LOADING_S) -> None:
    """Load models from disk; unchanged versions that are ready stay as they are.

    Exit code 1 if a model could not be loaded.
    """
    _change_each(names, server, "load", lambda c, name: c.load(name, timeout_s=timeout))


@takes_server
def unload(names: Names, *, server: ServerOptions, timeout: Timeout = defaults.LOADING_S) -> None:
    """Unload models, once their admitted requests are answered.

    Exit code 1 if a model could not be unloaded.
    """
    _change_each(names, server, "unload", lambda c, name: c.unload(name, timeout_s=timeout))


@takes_server
def reload(names: Names, *, server: ServerOptions, timeout: Timeout = defaults.LOADING_S) -> None:
    """Load models again, unchanged versions too; the old sessions answer until then.

    Exit code 1 if a model could not be loaded.
    """
    _change_each(
        names, server, "reload", lambda c, name: c.load(name, reload=True, timeout_s=timeout)
    )


@takes_server
def label(
    name: Annotated[str, typer.Argument(help="A model's name.")],
    assignments: Annotated[
        list[str], typer.Argument(metavar="LABEL=VERSION...", help="LABEL= removes the label.")
    ],
    *,
    models: OnDisk = None,
    server: ServerOptions,
    timeout: Timeout = defaults.LOADING_S,
) -> None:
    """Give labels to versions of a model, for good where versions.toml can be written.

    A labelled version is served, whatever the policy is.
    The label "stable" marks the version that answers requests without a version.
    Where the server cannot write, its labels hold until it stops; --models writes without it.
    """
    from weir.cli import model_directory

    changes = model_directory.parse_assignments(assignments)
    _warn_misspelt(given for given, version in changes.items() if version is not None)
    if models is None:
        _label_by_call(name, changes, server, timeout)
        return
    model_directory.set_labels(models, name, changes)
    for given, version in changes.items():
        typer.echo(_label_change(name, given, version))
    typer.echo(when_effective(name))


def when_effective(name: str) -> str:
    """When a server applies a change in a model's directory."""
    return (
        "a server with --model-control poll follows by itself, one with explicit at "
        f"`weir models load {name}`, one with none when it starts again"
    )


def how_long(change: "LabelChange") -> str:
    """How long a label that was set or removed by call holds, and why not for good."""
    if change.is_written:
        return "written to versions.toml"
    return f"until the server stops{change.reason and f': {change.reason}'}"


def serving_summary(model: "ModelInfo") -> str:
    """The default version and the other ready versions, with their labels."""
    ready = _ready(model)
    default = [_with_labels(each) for each in ready if each.version == model.answering]
    others = ", ".join(_with_labels(each) for each in ready if each.version != model.answering)
    return f"{default[0] if default else 'none'} answers{others and f'; also {others}'}"


def _change_each(
    names: Sequence[str], server: ServerOptions, verb: str, change: "Callable[[Client, str], None]"
) -> None:
    with connect(server) as client, suggest_model_control():

        def call(name: str) -> str:
            before = models_by_name(client).get(name)
            with suggest_models(client, name):
                change(client, name)
            after = models_by_name(client).get(name)
            return f"{name}: {_difference(verb, before, after) if after else f'{verb}ed'}"

        _run_each(names, call, f"{verb}ing", f"models could not be {verb}ed")


def _label_by_call(
    name: str, changes: Mapping[str, int | None], server: ServerOptions, timeout_s: float
) -> None:
    with connect(server) as client, suggest_model_control(OR_ON_DISK):

        def call(given: str) -> str:
            version = changes[given]
            with suggest_models(client, name):
                change = client.set_label(name, given, version, timeout_s=timeout_s)
            return f"{_label_change(name, given, version)} ({how_long(change)})"

        _run_each(list(changes), call, f"labelling {name}", "labels could not be set")


def _run_each(
    items: Sequence[str], call: Callable[[str], str], progress: str, summary: str
) -> None:
    """Call for each distinct item in turn and print its result; WeirError if any failed."""
    console = Console(stderr=True)
    outcomes: list[Outcome[str, str]] = []
    for item in dict.fromkeys(items):
        with console.status(f"{progress} {item}"):
            outcomes.append(_outcome(call, item))
        if outcomes[-1].result is not None:
            typer.echo(outcomes[-1].result)
    raise_failures(outcomes, summary)


def _outcome(call: Callable[[str], str], item: str) -> Outcome[str, str]:
    try:
        return Outcome(item, call(item))
    except (Unreachable, HandshakeFailed, Unauthenticated, Unimplemented):
        # The same would happen to each item.
        raise
    except CallError as error:
        reason = str(error).removeprefix(f"model {item!r}: ")
        return Outcome(item, failure=" ".join(reason.split()))


def _difference(verb: str, before: "ModelInfo | None", after: "ModelInfo") -> str:
    """The versions loaded and unloaded between two lists, and the versions that serve now."""
    old, new = (_ready(before) if before else []), _ready(after)
    known = {(each.version, each.since) for each in old}
    loaded = [each.version for each in new if (each.version, each.since) not in known]
    unloaded = [e.version for e in old if e.version not in {each.version for each in new}]
    parts = [f"{'reloaded' if verb == 'reload' else 'loaded'} {', '.join(loaded)}"] * bool(loaded)
    parts += [f"unloaded {', '.join(unloaded)}"] * bool(unloaded)
    return f"{', '.join(parts) or f'nothing to {verb}'}; {serving_summary(after)}"


def _ready(model: "ModelInfo") -> "list[VersionInfo]":
    return [version for version in model.versions if version.state == "READY"]


def _with_labels(version: "VersionInfo") -> str:
    labels = ", ".join(version.labels)
    return f"{version.version} ({labels})" if labels else version.version


def _label_change(name: str, given: str, version: int | None) -> str:
    return f"{name}: {given} removed" if version is None else f"{name}: {given} -> {version}"


def _warn_misspelt(labels: Iterable[str]) -> None:
    """Warn about labels that look like a misspelt `stable`."""
    from weir.bundle.versions import STABLE

    for given in labels:
        if STABLE not in given and get_close_matches(given.lower(), [STABLE], cutoff=0.8):
            sys.stderr.write(f"weir: {given}: a label like any other; is {STABLE!r} meant?\n")


def _require_no_options(context: typer.Context) -> None:
    """Raise UsageError for an option of the list before a subcommand, which would ignore it."""
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE":
            option = parameter.opts[0]
            raise UsageError(f"{option}: expected behind {context.invoked_subcommand}, got before")
