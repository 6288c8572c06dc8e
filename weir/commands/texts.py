"""What the verbs over texts have in common: where texts come from, and which model is meant."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from weir.errors import UsageError

if TYPE_CHECKING:
    from weir.client import Client

Texts = Annotated[
    list[str],
    typer.Argument(metavar="TEXTS", help="Texts; - reads one a line from standard input."),
]
Model = Annotated[
    str, typer.Option(help="The model's name; may be left out where the server has one only.")
]
Concurrency = Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Texts in flight.")]

_PARTS = (".encoder", ".decoder")


def texts_of(arguments: Sequence[str]) -> list[str]:
    """The texts meant; blank lines of standard input are passed over.

    Raises:
        UsageError: there is none.
    """
    texts: list[str] = []
    for argument in arguments:
        if argument == "-":
            texts += [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
        else:
            texts.append(argument)
    if not texts:
        raise UsageError("expected a text, got none on standard input")
    return texts


def model_of(client: "Client", model: str) -> str:
    """The model that was named, or the only one that is ready; of a pair, the name of the whole.

    Raises:
        UsageError: there are several, or none.
    """
    if model:
        return model
    names = {entry.name for entry in client.index(ready=True)}
    for part in _PARTS:
        names = {name.removesuffix(part) for name in names}
    if len(names) != 1:
        got = ", ".join(sorted(names)) or "none"
        raise UsageError(f"--model: expected one of those that are ready: {got}")
    return names.pop()
