"""What the verbs over texts have in common: where texts come from, and which model is meant."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from weir.client.errors import UsageError

if TYPE_CHECKING:
    from weir.client.client import Client

Texts = Annotated[
    list[str],
    typer.Argument(
        metavar="TEXTS",
        help="Texts; - reads one a line from standard input, and passes blank lines over.",
    ),
]
Model = Annotated[
    str, typer.Option(help="The model's name; may be left out where the server has one only.")
]
Concurrency = Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Texts in flight.")]

_PARTS = (".encoder", ".decoder")


def texts_of(arguments: Sequence[str]) -> list[str]:
    """The texts meant; blank lines of standard input are passed over.

    Raises:
        UsageError: there is none, or one is not in UTF-8.
    """
    texts: list[str] = []
    for argument in arguments:
        if argument == "-":
            lines = standard_input().split("\n")
            texts += [line.removesuffix("\r") for line in lines if line.strip()]
        else:
            texts.append(_require_utf8(argument))
    if not texts:
        raise UsageError("expected a text, got none on standard input")
    return texts


def standard_input() -> str:
    """All that stands on it; UsageError unless it is UTF-8, whatever the terminal's encoding."""
    return decoded(sys.stdin.buffer.read(), "standard input")


def decoded(content: bytes, source: str) -> str:
    """A text from its bytes, without the mark that some editors begin it with.

    Raises:
        UsageError: names the source and the line where it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{source}, line {line}: expected UTF-8, got other bytes") from error


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


def _require_utf8(argument: str) -> str:
    """The same; bytes that were none reach Python as halves of characters."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"expected texts in UTF-8, got {argument!r}") from error
    return argument
