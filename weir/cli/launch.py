"""`weir serve`, `train`, `export`, `import` and `score`: programs of the other packages.

Each parses its own arguments, `--help` included.
"""

import importlib
from collections.abc import Sequence

import typer

from weir.cli.error_hints import requires

# By verb: its package, the extra that it needs, and its summary.
PROGRAMS = {
    "serve": (
        "weir.server", "server",
        "Serve a model repository, an ONNX file or a bundle over gRPC, with metrics.",
    ),
    "train": ("weir.training", "train", "Train a network by a recipe; writes a run directory."),
    "export": (
        "weir.export", "export", "Export a run as an ONNX bundle, once a parity check passes."
    ),
    "score": (
        "weir.score", "score",
        "Score the rows of a file or a folder, in this process or by a server.",
    ),
    "import": (
        "weir.export.onnx_import", "export", "Import an ONNX file as a bundle, once it is checked."
    ),
}  # fmt: skip
_PASS_THROUGH = {"allow_extra_args": True}


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb, (_, _, summary) in PROGRAMS.items():
        app.command(verb, help=summary, add_help_option=False, context_settings=_PASS_THROUGH)(
            launch
        )


def protected(arguments: Sequence[str]) -> list[str]:
    """The command line with `--` after one of these verbs, so that its options pass through."""
    verb, rest = list(arguments[:1]), list(arguments[1:])
    return [*verb, "--", *rest] if verb and verb[0] in PROGRAMS else [*verb, *rest]


def launch(context: typer.Context) -> None:
    """Run the verb's program with its arguments and exit with its exit code."""
    verb = str(context.info_name)
    package, extra, _ = PROGRAMS[verb]
    with requires(extra):
        main = importlib.import_module(f"{package}.__main__").main
        raise typer.Exit(main(context.args, f"weir {verb}") or 0)
