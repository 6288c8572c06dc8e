"""`weir`: the command with all verbs.

`_EPILOG` explains its exit codes; docs/serving.md adds those of `serve`, `train` and `export`.
"""

import sys
from collections.abc import Sequence

import typer

from weir.cli import launch
from weir.cli.bench import bench
from weir.cli.classify import classify, classify_text
from weir.cli.evaluate import evaluate
from weir.cli.fetch import fetch
from weir.cli.forecast import forecast
from weir.cli.gateway import gateway
from weir.cli.generate import generate
from weir.cli.health import health
from weir.cli.infer import infer
from weir.cli.inspect import inspect
from weir.cli.models import models_app
from weir.cli.options import reflowed
from weir.cli.rollback import rollback
from weir.cli.tag import tag
from weir.client.errors import (
    DeadlineExceeded,
    HandshakeFailed,
    MissingExtra,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unreachable,
    UsageError,
    WeirError,
)

_EXIT_CODES: dict[type[WeirError], int] = {
    UsageError: 2,
    MissingExtra: 2,
    Unavailable: 3,
    Unreachable: 3,
    HandshakeFailed: 3,
    DeadlineExceeded: 4,
    ResourceExhausted: 5,
}

_EPILOG = (
    "Exit codes: 0 success; 1 failure, explained in one line; 2 wrong usage; 3 server unreachable "
    "or not ready; 4 timeout; 5 server overloaded; 130 Ctrl-C."
)
_ADVICE: dict[type[WeirError], str] = {
    Unreachable: ": start one with `weir serve`, or give --target",
    Unauthenticated: ": give a token that the server knows with --token-file",
    PermissionDenied: ": give another token with --token-file",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit; an expected failure prints one line to stderr."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        _app()(args=launch.protected(given), prog_name="weir")
    except WeirError as error:
        sys.stderr.write(f"weir: {_one_line(error)}{_ADVICE.get(type(error), '')}\n")
        sys.exit(_EXIT_CODES.get(type(error), 1))


def _app() -> typer.Typer:
    app = typer.Typer(
        help="Train, export and serve networks that share weights.",
        epilog=_EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    launch.register(app)
    for verb in (
        infer, classify, classify_text, tag, generate, forecast, evaluate, inspect, fetch, rollback,
        health, bench, gateway,
    ):  # fmt: skip
        app.command(help=reflowed(verb))(verb)
    app.add_typer(models_app(), name="models")
    return app


def _one_line(error: WeirError) -> str:
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return text or type(error).__name__
