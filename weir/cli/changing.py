"""What the verbs that change a server's models have in common: one question each, and what became of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from weir.cli.many import Outcome, raise_failures
from weir.client.errors import CallError, Unimplemented, Unreachable

if TYPE_CHECKING:
    from weir.client.results import ModelInfo, VersionInfo

OTHERWISE = ", or give --models"

OnDisk = Annotated[
    Path | None,
    typer.Option(
        "--models",
        metavar="DIR",
        help="Write NAME/versions.toml of this repository and ask no server; comments in it are lost.",
    ),
]


@contextmanager
def control(otherwise: str = "") -> Iterator[None]:
    """Tell of a server that takes no such calls how one does, and what to do without."""
    try:
        yield
    except Unimplemented as error:
        raise Unimplemented(
            f"the server takes no control calls: start it with `weir serve --model-control explicit`{otherwise}"
        ) from error


def each(items: Sequence[str], ask: Callable[[str], str], doing: str, what: str) -> None:
    """Ask for each, once, and print what it came to; WeirError at the end if any failed."""
    console = Console(stderr=True)
    outcomes: list[Outcome[str, str]] = []
    for item in dict.fromkeys(items):
        with console.status(f"{doing} {item}"):
            outcomes.append(_outcome(ask, item))
        if outcomes[-1].answer is not None:
            typer.echo(outcomes[-1].answer)
    raise_failures(outcomes, what)


def standing(model: "ModelInfo") -> str:
    """Which of its versions answers where none is named, and which others serve."""
    serving = ready(model)
    answering = [_named(one) for one in serving if one.version == model.answering]
    others = ", ".join(_named(one) for one in serving if one.version != model.answering)
    return f"{answering[0] if answering else 'none'} answers{others and f'; also {others}'}"


def ready(model: "ModelInfo") -> "list[VersionInfo]":
    """Its versions that serve."""
    return [version for version in model.versions if version.state == "READY"]


def _named(version: "VersionInfo") -> str:
    labels = ", ".join(version.labels)
    return f"{version.version} ({labels})" if labels else version.version


def _outcome(ask: Callable[[str], str], item: str) -> Outcome[str, str]:
    try:
        return Outcome(item, ask(item))
    except (Unreachable, Unimplemented):
        # So it would be for each of them.
        raise
    except CallError as error:
        reason = str(error).removeprefix(f"model {item!r}: ")
        return Outcome(item, failure=" ".join(reason.split()))
