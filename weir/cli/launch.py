"""`weir serve`, `weir train` and `weir export`: the programs of the other packages.

Each parses its own arguments, `--help` included.
"""

import importlib
from collections.abc import Callable, Sequence

import typer

from weir.cli.error_hints import requires

PROGRAMS = {
    "serve": ("weir.server", "Serve every model of a directory over gRPC, with metrics."),
    "train": ("weir.training", "Train a network by a recipe; writes a run directory."),
    "export": ("weir.export", "Export a run as an ONNX bundle, once a parity check passes."),
}
_EXTRAS = {"serve": "server", "train": "train", "export": "export"}
_PASS_THROUGH = {"allow_extra_args": True}


def register(app: typer.Typer) -> None:
    """Add the three verbs."""
    for verb, (_, summary) in PROGRAMS.items():
        app.command(verb, help=summary, add_help_option=False, context_settings=_PASS_THROUGH)(
            _verb(verb)
        )


def _verb(verb: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        launch(verb, context.args)

    return run


def protected(arguments: Sequence[str]) -> list[str]:
    """The command line with `--` after one of the three verbs, so that its options pass through."""
    verb, rest = list(arguments[:1]), list(arguments[1:])
    return [*verb, "--", *rest] if verb and verb[0] in PROGRAMS else [*verb, *rest]


def launch(verb: str, arguments: list[str]) -> None:
    """Run a verb's program with its arguments and exit with its exit code."""
    package, _ = PROGRAMS[verb]
    with requires(_EXTRAS[verb]):
        main = importlib.import_module(f"{package}.__main__").main
        raise typer.Exit(main(arguments, f"weir {verb}") or 0)
