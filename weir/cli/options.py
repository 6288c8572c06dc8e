"""Options and arguments that several verbs share."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from weir.client.errors import UsageError

if TYPE_CHECKING:
    from weir.client.client import Client

Target = Annotated[
    str, typer.Option(envvar="WEIR_TARGET", metavar="HOST:PORT", help="The server's address.")
]
Timeout = Annotated[float, typer.Option(min=0.001, metavar="SECONDS", help="Timeout of each call.")]
Version = Annotated[
    str, typer.Option(help="The model's version, or a label of one; by default the server chooses.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Texts = Annotated[
    list[str],
    typer.Argument(
        metavar="TEXTS", help="Texts; - reads one a line from standard input and skips blank lines."
    ),
]
Model = Annotated[
    str, typer.Option(help="The model's name; optional if the server has one model only.")
]
Concurrency = Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Texts in flight.")]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_GRAPH_SUFFIXES = (".encoder", ".decoder")


def duration_s(text: str) -> float:
    """Seconds from `10s`, `500ms`, `1.5m`, `2h` or a bare number of seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"expected a duration such as 10s, 500ms or 2m, got {text!r}")
    return float(match[1]) * _UNIT_S[match[2]]


def model_name(client: "Client", model: str) -> str:
    """The value of --model, else the server's only ready model; UsageError unless there is one.

    Both graphs of an encoder-decoder count as one model.
    """
    if model:
        return model
    names = {entry.name for entry in client.index(ready=True)}
    for suffix in _GRAPH_SUFFIXES:
        names = {name.removesuffix(suffix) for name in names}
    if len(names) != 1:
        got = ", ".join(sorted(names)) or "none"
        raise UsageError(f"--model: expected one of those that are ready: {got}")
    return names.pop()
