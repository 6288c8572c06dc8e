"""Command line of export, `python -m weir.export RUN --to models/`; see `--help`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from weir.bundle.model_formats import is_model_file

if TYPE_CHECKING:
    from weir.export.publishing import Published

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_PARITY = 3
EXIT_ACCURACY = 4
WEIGHTS_PANEL = "Pretrained weights"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main(args: list[str] | None = None, prog: str = "python -m weir.export") -> int:
    """Run the command line with `args`, by default those of the process; returns the exit code."""
    try:
        app(args=args, prog_name=prog)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else EXIT_ERROR
    return 0


def _run_directory(run: Path | None) -> Path | None:
    """The argument; an error of one line for a file of a model, which no run directory is."""
    if run is None or not run.is_file():
        return run
    advice = ""
    if run.suffix.lower() == ".onnx":
        advice = f"; an ONNX file is imported: weir import {run} --to ..."
    elif is_model_file(run.name) or run.name.endswith((".pth.tar", ".ckpt")):
        advice = (
            f"; weights of a known network: --weights {run} --recipe ... --labels ...; "
            "any torch.nn.Module is published by weir.export.publish"
        )
    typer.echo(f"weir: {run}: expected a run directory, got a file{advice}", err=True)
    raise typer.Exit(EXIT_USAGE)


@app.command()
def export(
    run: Annotated[
        Path | None,
        typer.Argument(help="A run directory of training.", callback=_run_directory),
    ] = None,
    *,
    to: Annotated[Path, typer.Option(help="The model repository to publish into.")],
    name: Annotated[
        str | None, typer.Option(help="The model's name; default: its architecture.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="The model's version; default: the next free one.")
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="fp16 runs on CUDA only, int8 on CPUs only."),
    ] = "fp32",
    max_accuracy_drop: Annotated[
        float,
        typer.Option(min=0.0, max=100.0, help="Accuracy that int8 may cost, in percentage points."),
    ] = 1.0,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a run: weights in torchvision's layout (torch or safetensors), "
            "also in a checkpoint of a training script.",
            rich_help_panel=WEIGHTS_PANEL,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="The network of the weights: alexnet, googlenet or inception-v3.",
            rich_help_panel=WEIGHTS_PANEL,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="A text file with a class on each line.", rich_help_panel=WEIGHTS_PANEL),
    ] = None,
) -> None:
    """Export a trained network as ONNX, compare both, and publish a bundle if they agree.

    The network is a run of `weir train`, or has published weights. A torch.nn.Module of yours is
    published by weir.export.publish in Python, and an ONNX file by `weir import`.

    Exit codes: 0 published, 1 failed, 2 wrong usage, 3 PyTorch and ONNX Runtime disagree,
    4 int8 costs too much accuracy.
    """

    def publish() -> "Published":
        # torch is imported below the checks, so that --help and wrong usage are fast.
        if run is not None and (weights, recipe, labels) == (None, None, None):
            from weir.export.runs.publishing import publish_run  # noqa: PLC0415

            return publish_run(
                run,
                to=to,
                name=name,
                version=version,
                precision=precision,
                max_accuracy_drop=max_accuracy_drop,
            )
        if run is not None or weights is None or recipe is None or labels is None:
            raise typer.BadParameter("expected a run, or --weights with --recipe and --labels")
        if precision == "int8":
            raise typer.BadParameter("int8 needs the data of a run, for calibration and accuracy")
        from weir.export.pretrained import publish_weights  # noqa: PLC0415

        return publish_weights(
            weights,
            recipe=recipe,
            labels=labels,
            to=to,
            name=name,
            version=version,
            precision=precision,
        )

    _print_summary(_or_exit(publish))


def _or_exit(publish: Callable[[], "Published"]) -> "Published":
    """Publish, and turn an expected failure into a line and an exit code."""
    from weir.bundle.errors import BundleError  # noqa: PLC0415
    from weir.export import errors  # noqa: PLC0415
    from weir.training.errors import TrainingError  # noqa: PLC0415

    try:
        with Console(stderr=True).status("exporting"):
            return publish()
    except errors.ParityError as error:
        raise _failure(error, EXIT_PARITY) from None
    except errors.AccuracyError as error:
        raise _failure(error, EXIT_ACCURACY) from None
    except (BundleError, errors.ExportError, TrainingError, OSError) as error:
        raise _failure(error, EXIT_ERROR) from None


def _failure(error: Exception, code: int) -> typer.Exit:
    typer.echo(f"weir: {'; '.join(str(error).splitlines())}", err=True)
    return typer.Exit(code)


def _print_summary(published: "Published") -> None:
    from weir.export import speed  # noqa: PLC0415 - imports ONNX Runtime

    parity = published.parity
    # Lines are not wrapped, so that they can be copied.
    console = Console()
    for line in (f"published {published.path}", *(f"  {each}" for each in published.advice)):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    table = Table(show_header=False, box=None)
    no_limit = "; INT8 has no limit on it, but on its accuracy" if published.quantisation else ""
    table.add_row(
        "parity",
        f"max absolute {parity.max_absolute:.2e}, max relative {parity.max_relative:.2e} "
        f"over {parity.rows} rows, batches of {', '.join(map(str, parity.batch_sizes))}{no_limit}",
    )
    table.add_row("compared on", f"{parity.examples}; random")
    if cost := published.quantisation:
        table.add_row(
            "accuracy",
            f"FP32 {cost.before:.2%}, INT8 {cost.after:.2%} on {cost.test_rows:,} {cost.test}",
        )
    for each in published.speeds:
        table.add_row("speed", str(each))
    fixed = ", ".join(
        f"{name} {list(axes.values())}" for name, axes in published.fixed_axes.items() if axes
    )
    if fixed:
        table.add_row("fixed sizes", fixed)
    table.add_row("size", f"{published.size_bytes / 1e6:.2f} MB, {published.precision}")
    console.print(table)
    if warning := speed.warning(published.speeds):
        typer.echo(f"weir: warning: {warning}", err=True)


if __name__ == "__main__":
    sys.exit(main())
