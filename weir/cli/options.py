"""Options and arguments that several verbs share."""

import functools
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from weir.client import defaults
from weir.client.errors import UsageError

if TYPE_CHECKING:
    from weir.client.client import Client
    from weir.client.credentials import Tls

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

_HEADERS_VARIABLE = "WEIR_HEADER"
_server_option = functools.partial(typer.Option, rich_help_panel="The server")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_HEADER_NAME = re.compile(r"[a-z0-9_.-]+")
_GRAPH_SUFFIXES = (".encoder", ".decoder")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options of every verb that calls a server: where it is, and how to be let in.

    The fields are the options; `takes_server` adds them to a verb.
    """

    target: Annotated[
        str,
        _server_option(
            envvar="WEIR_TARGET",
            metavar="HOST:PORT",
            help="The server's address. Calls are balanced over HOST:PORT,HOST:PORT and over the "
            "addresses of dns:///HOST:PORT.",
        ),
    ] = defaults.TARGET
    tls: Annotated[
        bool | None,
        _server_option(
            "--tls/--no-tls",
            envvar="WEIR_TLS",
            help="Use TLS; --ca, --cert, --key and --server-name imply it. --no-tls sends also a "
            "token in plaintext to another machine.",
            show_default=False,
        ),
    ] = None
    ca: Annotated[
        Path | None,
        _server_option(
            envvar="WEIR_CA",
            metavar="FILE",
            help="PEM file of the authorities that may sign the server's certificate; by default "
            "the public ones.",
        ),
    ] = None
    cert: Annotated[
        Path | None,
        _server_option(
            envvar="WEIR_CERT", metavar="FILE", help="PEM file of this client's certificate."
        ),
    ] = None
    key: Annotated[
        Path | None,
        _server_option(
            envvar="WEIR_KEY", metavar="FILE", help="PEM file of the private key of --cert."
        ),
    ] = None
    server_name: Annotated[
        str | None,
        _server_option(
            envvar="WEIR_SERVER_NAME",
            metavar="NAME",
            help="The name in the server's certificate; by default the host of --target.",
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        _server_option(
            envvar="WEIR_TOKEN_FILE", metavar="FILE", help="A file with the bearer token to send."
        ),
    ] = None
    header: Annotated[
        list[str] | None,
        _server_option(
            metavar="NAME:VALUE",
            help=f"Request metadata to send; may be repeated. {_HEADERS_VARIABLE} has one a line.",
        ),
    ] = None

    def client_tls(self) -> "bool | Tls | None":
        """The argument `tls` of a client."""
        from weir.client.credentials import Tls

        given = (self.ca, self.cert, self.key, self.server_name)
        if self.tls is False or given == (None,) * len(given):
            return self.tls
        return Tls(*given)

    def headers(self) -> dict[str, str]:
        """The argument `metadata` of a client; UsageError for a header that is none."""
        given = self.header or os.environ.get(_HEADERS_VARIABLE, "").splitlines()
        return dict(_header(text) for text in given)


def takes_server(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb with the options of `ServerOptions` in place of its parameter `server`."""
    hints = get_type_hints(ServerOptions, include_extras=True)
    added = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(ServerOptions)
    ]

    @functools.wraps(verb)
    def run(*arguments: object, **options: object) -> None:
        server: dict[str, Any] = {each.name: options.pop(each.name) for each in added}
        verb(*arguments, server=ServerOptions(**server), **options)

    signature = inspect.signature(verb, eval_str=True)
    own = [each for name, each in signature.parameters.items() if name != "server"]
    # The typer package reads a verb's options from its signature.
    run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    return run


def reflowed(verb: Callable[..., None]) -> str:
    """The verb's docstring without the line breaks within its paragraphs, which typer keeps."""
    paragraphs = inspect.cleandoc(verb.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not colon or not _HEADER_NAME.fullmatch(name):
        raise UsageError(f"--header: expected NAME:VALUE with a name in lower case, got {text!r}")
    if name == "authorization":
        # Arguments and variables of a process are visible to others.
        raise UsageError("--header: expected --token-file for an authorization")
    return name, value


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
