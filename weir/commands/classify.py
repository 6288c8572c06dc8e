"""`weir classify`: what pictures show, from a shell."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from weir import defaults
from weir.commands.extras import requires
from weir.commands.options import AsJson, Target, Timeout, Version
from weir.errors import InvalidArgument, ResourceExhausted, UsageError, WeirError

if TYPE_CHECKING:
    from weir.answers import Class

_SUFFIXES = (".jpg", ".jpeg", ".png")
# How the server begins what it says of the one picture of a request.
_ITS_OWN = "pictures[0]: "
_TRIES = 20


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of one picture: classes, or why there are none."""

    path: Path
    classes: "Sequence[Class]" = ()
    failure: str = ""


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
        from weir.client import Client
    files = _files(paths)
    with Client(target, timeout_s=timeout) as client:
        ask = partial(client.classify, model, top=top, version=version)
        outcomes = _classify_all(ask, files, concurrency)
    if as_json:
        typer.echo(json.dumps([_plain(outcome) for outcome in outcomes]))
    else:
        Console().print(_table(outcomes, model))
    failed = [outcome for outcome in outcomes if outcome.failure]
    for outcome in failed:
        sys.stderr.write(f"weir: {outcome.path}: {outcome.failure}\n")
    if failed:
        raise WeirError(f"{len(failed)} of {len(outcomes)} pictures could not be classified")


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


def _classify_all(
    ask: "Callable[[list[Path]], list[list[Class]]]", files: list[Path], concurrency: int
) -> list[_Outcome]:
    """Every picture's outcome, in order; a failure that is not one picture's alone raises."""

    def one(path: Path) -> _Outcome:
        try:
            (classes,) = _patiently(lambda: ask([path]))
        except (UsageError, ResourceExhausted) as error:
            return _Outcome(path, failure=str(error).removeprefix(f"{path}: "))
        except InvalidArgument as error:
            if not str(error).startswith(_ITS_OWN):
                raise
            return _Outcome(path, failure=str(error).removeprefix(_ITS_OWN))
        return _Outcome(path, classes)

    console = Console(stderr=True)
    with ThreadPoolExecutor(min(concurrency, len(files))) as threads:
        return list(
            track(
                threads.map(one, files),
                "classifying",
                total=len(files),
                console=console,
                transient=True,
                disable=len(files) == 1 or not console.is_terminal,
            )
        )


def _patiently(ask: "Callable[[], list[list[Class]]]") -> "list[list[Class]]":
    """Ask again when the server is full and says when to come back."""
    for _ in range(_TRIES - 1):
        try:
            return ask()
        except ResourceExhausted as error:
            if error.retry_after_s is None:
                raise
            time.sleep(error.retry_after_s)
    return ask()


def _plain(outcome: _Outcome) -> dict[str, object]:
    if outcome.failure:
        return {"picture": str(outcome.path), "error": outcome.failure}
    classes = [
        {"label": chosen.label, "index": chosen.index, "probability": chosen.score}
        for chosen in outcome.classes
    ]
    return {"picture": str(outcome.path), "classes": classes}


def _table(outcomes: list[_Outcome], model: str) -> Table:
    table = Table(title=model)
    table.add_column("picture", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    for outcome in outcomes:
        name = escape(str(outcome.path))
        if outcome.failure:
            table.add_row(name, f"[red]{escape(outcome.failure)}[/]", "", end_section=True)
        for rank, chosen in enumerate(outcome.classes, 1):
            table.add_row(
                name if rank == 1 else "",
                escape(chosen.label or str(chosen.index)),
                f"{chosen.score:.4f}",
                end_section=rank == len(outcome.classes),
            )
    return table
