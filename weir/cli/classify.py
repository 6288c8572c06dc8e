"""`weir classify`: the most probable classes of pictures."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weir.cli.error_hints import requires, suggest_verb
from weir.cli.fan_out import Outcome, call_each, raise_failures
from weir.cli.options import AsJson, Target, Timeout, Version
from weir.client import defaults
from weir.client.errors import UsageError

if TYPE_CHECKING:
    from weir.client.results import Class

_SUFFIXES = (".jpg", ".jpeg", ".png")
# Prefix of the server's messages about the only picture of a request.
_PICTURE_PREFIX = "pictures[0]: "


def classify(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PICTURES", help="JPEG or PNG files, or folders of them."),
    ],
    *,
    model: Annotated[str, typer.Option(help="The model's name.")],
    top: Annotated[int, typer.Option(min=1, help="Number of classes per picture.")] = 5,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, help="Pictures in flight.")
    ] = 16,
    version: Version = "",
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Classify pictures.

    A picture that fails is reported and skipped. Exit code 1 if a picture failed.
    """
    with requires("client"):
        from weir.client.client import Client
    files = _files(paths)
    with Client(target, timeout_s=timeout) as client:

        def call(path: Path) -> "list[Class]":
            return client.classify(model, [path], top=top, version=version)[0]

        with suggest_verb(client, model, "classify"):
            outcomes = call_each(
                call,
                files,
                concurrency=concurrency,
                item_prefix=_PICTURE_PREFIX,
                progress="classifying",
            )
    if as_json:
        typer.echo(json.dumps([_to_json(outcome) for outcome in outcomes]))
    else:
        Console().print(_table(outcomes, model))
    raise_failures(outcomes, "pictures could not be classified")


def _files(paths: Iterable[Path]) -> list[Path]:
    """The files of the arguments; a folder stands for its pictures, sorted by name."""
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


def _to_json(outcome: "Outcome[Path, list[Class]]") -> dict[str, object]:
    if outcome.result is None:
        return {"picture": str(outcome.item), "error": outcome.failure}
    return {"picture": str(outcome.item), "classes": classes_to_json(outcome.result)}


def classes_to_json(classes: "Sequence[Class]") -> list[dict[str, object]]:
    """Classes for JSON, of pictures and of texts."""
    return [
        {"label": each.label, "index": each.index, "probability": each.score} for each in classes
    ]


def _table(outcomes: "list[Outcome[Path, list[Class]]]", model: str) -> Table:
    table = Table(title=model)
    table.add_column("picture", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    for outcome in outcomes:
        name = escape(str(outcome.item))
        classes = outcome.result or []
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
