"""`python -m export RUN --to models/`: publish a trained run.

Exit codes: 0 published; 1 it could not be, and one line says why; 2 wrong usage;
3 the parity gate is closed: PyTorch and ONNX Runtime disagree, nothing was published.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from export.publishing import Published

EXIT_ERROR = 1
EXIT_PARITY = 3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main(args: list[str] | None = None, prog: str = "python -m export") -> int:
    """Run the command line with `args`, by default those of the process; returns the exit code."""
    try:
        app(args=args, prog_name=prog)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else EXIT_ERROR
    return 0


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run directory that training wrote.")],
    to: Annotated[Path, typer.Option(help="The model repository to publish into.")],
    name: Annotated[
        str | None, typer.Option(help="The model's name; by default its architecture.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Its version; by default the next free one.")
    ] = None,
) -> None:
    """Write a trained network as ONNX, compare the two, and publish a bundle if they agree.

    Exit codes: 0 published, 1 failed, 2 wrong usage, 3 PyTorch and ONNX Runtime disagree.
    """
    # Imported here, so that --help does not wait for torch.
    from bundle.errors import BundleError  # noqa: PLC0415
    from export.errors import ExportError, ParityError  # noqa: PLC0415
    from export.runs import publish_run  # noqa: PLC0415
    from training.errors import TrainingError  # noqa: PLC0415

    try:
        with Console(stderr=True).status("exporting"):
            published = publish_run(run, to=to, name=name, version=version)
    except ParityError as error:
        raise _failure(error, EXIT_PARITY) from None
    except (BundleError, ExportError, TrainingError, OSError) as error:
        raise _failure(error, EXIT_ERROR) from None
    _print_summary(published)


def _failure(error: Exception, code: int) -> typer.Exit:
    typer.echo(f"error: {'; '.join(str(error).splitlines())}", err=True)
    return typer.Exit(code)


def _print_summary(published: "Published") -> None:
    parity = published.parity
    # A path must come out whole, to be copied, whatever the terminal's width.
    console = Console()
    console.print(f"published {published.path}", soft_wrap=True, markup=False, highlight=False)
    table = Table(show_header=False, box=None)
    table.add_row(
        "parity",
        f"max absolute {parity.max_absolute:.2e}, max relative {parity.max_relative:.2e} "
        f"over {parity.rows} rows, batches of {', '.join(map(str, parity.batch_sizes))}",
    )
    table.add_row("compared on", f"{parity.examples}; random")
    table.add_row("size", f"{published.size_bytes / 1e6:.2f} MB")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
