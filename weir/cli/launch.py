"""`weir serve`, `weir train`, `weir export`: the programs of the other packages, under one name.

They read their own arguments, `--help` included; nothing is interpreted here.
"""

import importlib
from collections.abc import Callable, Sequence

import typer

from weir.cli.extras import requires

PROGRAMS = {
    "serve": ("weir.server", "Serve every model of a directory over gRPC, with metrics."),
    "train": ("weir.training", "Train a network by a recipe; leaves a run directory."),
    "export": ("weir.export", "Turn a run into an ONNX bundle, once both compute the same."),
}
_EXTRAS = {"serve": "server", "train": "train", "export": "export"}
_UNTOUCHED = {"allow_extra_args": True}


def register(app: typer.Typer) -> None:
    """Add the three verbs."""
    for verb, (_, summary) in PROGRAMS.items():
        app.command(verb, help=summary, add_help_option=False, context_settings=_UNTOUCHED)(
            _verb(verb)
        )


def _verb(verb: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        launch(verb, context.args)

    return run


def protected(arguments: Sequence[str]) -> list[str]:
    """The command line with what follows one of the three verbs marked as none of our options."""
    verb, rest = list(arguments[:1]), list(arguments[1:])
    return [*verb, "--", *rest] if verb and verb[0] in PROGRAMS else [*verb, *rest]


def launch(verb: str, arguments: list[str]) -> None:
    """Run another package's program with these arguments, and end with its exit code."""
    package, _ = PROGRAMS[verb]
    with requires(_EXTRAS[verb]):
        main = importlib.import_module(f"{package}.__main__").main
        raise typer.Exit(main(arguments, f"weir {verb}") or 0)
