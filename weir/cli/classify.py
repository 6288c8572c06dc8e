"""`weir classify`: what pictures show, from a shell."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weir.cli.advice import advised
from weir.cli.extras import requires
from weir.cli.many import Outcome, ask_all, raise_failures
from weir.cli.options import AsJson, Target, Timeout, Version
from weir.client import defaults
from weir.client.errors import UsageError

if TYPE_CHECKING:
    from weir.client.results import Class

_SUFFIXES = (".jpg", ".jpeg", ".png")
# How the server begins what it says of the one picture of a request.
_OWN = "pictures[0]: "


def classify(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PICTURES", help="JPEG or PNG files, or folders of them."),
    ],
    *,
    model: Annotated[str, typer.Option(help="The model's name.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes a picture gets.")] = 5,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, help="Pictures in flight.")
    ] = 16,
    version: Version = "",
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Say what pictures show.

    A picture that cannot be read is named and passed over. Exit code 1 if there was one.
    """
    with requires("client"):
        from weir.client.client import Client
    files = _files(paths)
    with Client(target, timeout_s=timeout) as client:

        def ask(path: Path) -> "list[Class]":
            return client.classify(model, [path], top=top, version=version)[0]

        with advised(client, model, "classify"):
            outcomes = ask_all(ask, files, concurrency=concurrency, own=_OWN, doing="classifying")
    if as_json:
        typer.echo(json.dumps([_plain(outcome) for outcome in outcomes]))
    else:
        Console().print(_table(outcomes, model))
    raise_failures(outcomes, "pictures could not be classified")


def _files(paths: Iterable[Path]) -> list[Path]:
    """The files meant: themselves, and the pictures of folders in the order of their names."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if _is_picture(file, path))
            if not found:
                raise UsageError(f"{path}: no pictures there ({', '.join(_SUFFIXES)})")
            files += found
        else:
            files.append(path)
    return files


def _is_picture(file: Path, folder: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix.lower() in _SUFFIXES and not is_hidden and file.is_file()


def _plain(outcome: "Outcome[Path, list[Class]]") -> dict[str, object]:
    if outcome.answer is None:
        return {"picture": str(outcome.item), "error": outcome.failure}
    classes = [
        {"label": chosen.label, "index": chosen.index, "probability": chosen.score}
        for chosen in outcome.answer
    ]
    return {"picture": str(outcome.item), "classes": classes}


def _table(outcomes: "list[Outcome[Path, list[Class]]]", model: str) -> Table:
    table = Table(title=model)
    table.add_column("picture", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    for outcome in outcomes:
        name = escape(str(outcome.item))
        classes = outcome.answer or []
        if outcome.failure:
            table.add_row(name, f"[red]{escape(outcome.failure)}[/]", "", end_section=True)
        for rank, chosen in enumerate(classes, 1):
            table.add_row(
                name if rank == 1 else "",
                escape(chosen.label or str(chosen.index)),
                f"{chosen.score:.4f}",
                end_section=rank == len(classes),
            )
    return table
