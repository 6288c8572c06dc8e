"""Command line of import, `python -m weir.export.onnx_import FILE --to models/`; see `--help`."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from weir.export.onnx_import.publishing import Imported
    from weir.export.onnx_import.spec import ImportSpec

EXIT_ERROR = 1
EXIT_PARITY = 3
EXIT_ACCURACY = 4
PICTURES = "Pictures"
SEQUENCES = "Sequences"
EXAMPLES = "Example inputs"
INT8 = "INT8"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main(args: list[str] | None = None, prog: str = "python -m weir.export.onnx_import") -> int:
    """Run the command line with `args`, by default those of the process; returns the exit code."""
    try:
        given = sys.argv[1:] if args is None else args
        app(args=given, prog_name=prog, obj=tuple(given))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else EXIT_ERROR
    return 0


@app.command()
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An ONNX file of any exporter.")],
    *,
    to: Annotated[Path, typer.Option(help="The model repository to publish into.")],
    name: Annotated[
        str | None,
        typer.Option(help="The model's name; default: the file's, or the folder's of model.onnx."),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="The model's version; default: the next free one.")
    ] = None,
    batch: Annotated[
        bool | None,
        typer.Option(
            help="The first axis is the batch, or is not; default: if that can be proved."
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[OUTPUT=]FILE", help="A text file with a label on each line, for an output."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Allowed difference, of a value and of the largest; default: 1e-4 in FP32.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="INPUT", help="The input that takes pictures.", rich_help_panel=PICTURES
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="The input's size, if the file leaves it free.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Resize the short side to this, then crop the centre; default: stretch.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Factor of a pixel, 0 to 255; default: 1/255.", rich_help_panel=PICTURES),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B",
            help="Subtracted from a scaled pixel; one number, or one for each channel.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="Divides the difference.", rich_help_panel=PICTURES),
    ] = None,
    layout: Annotated[
        Literal["nchw", "nhwc"] | None,
        typer.Option(
            help="Order of the input's axes; default: by its 1 or 3 channels.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    bgr: Annotated[
        bool,
        typer.Option("--bgr", help="The channels are blue, green, red.", rich_help_panel=PICTURES),
    ] = False,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="OUTPUT",
            help="The output with a score for each class; default: the only one of that form.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    softmax: Annotated[
        bool | None,
        typer.Option(
            help="Probabilities are the softmax of the scores, or the scores themselves; "
            "default: softmax, unless they add up to 1.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    time_axis: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=AXIS",
            help="The axis of an input along which rows differ in length.",
            rich_help_panel=SEQUENCES,
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="INPUT", help="The input of the rows' lengths.", rich_help_panel=SEQUENCES
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="INPUT",
            help="The input that is 1 for entries and 0 for padding.",
            rich_help_panel=SEQUENCES,
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="tokenizer.json",
            help="Makes token ids of texts; the inputs are those of Hugging Face's classifiers.",
            rich_help_panel=SEQUENCES,
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The most entries of a row; default: 512, or what the graph takes.",
            rich_help_panel=SEQUENCES,
        ),
    ] = None,
    padding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=VALUE",
            help="The value that fills short rows; default: 0.",
            rich_help_panel=SEQUENCES,
        ),
    ] = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            metavar="INPUT=MIN:MAX",
            help="The values of an input; integers outside are refused by the server.",
            rich_help_panel=EXAMPLES,
        ),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Inputs, and outputs to compare with, by name; default: random inputs.",
            rich_help_panel=EXAMPLES,
        ),
    ] = None,
    precision: Annotated[
        Literal["int8"] | None,
        typer.Option(help="int8 runs on CPUs only; default: as it is.", rich_help_panel=INT8),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Rows of every input, to take the ranges of INT8 from.",
            rich_help_panel=INT8,
        ),
    ] = None,
    max_accuracy_drop: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=100.0,
            help="Rows that int8 may classify otherwise than FP32, in percent.",
            rich_help_panel=INT8,
        ),
    ] = 1.0,
) -> None:
    """Publish an ONNX file as a bundle, once its graph is checked on example inputs.

    Exit codes: 0 published, 1 failed, 2 wrong usage, 3 a check of the graph failed,
    4 int8 costs too much accuracy.
    """
    if (precision is None) != (calibration is None):
        raise typer.BadParameter("expected --precision int8 with --calibration, got one of them")
    if image is None and any(
        each is not None
        for each in (image_size, short_side, scale, mean, std, layout, classes, softmax)
    ):
        raise typer.BadParameter("expected --image INPUT with the options of pictures, got none")

    def specify() -> "ImportSpec":
        from weir.export.onnx_import.spec import ImportSpec, Int8, Pictures  # noqa: PLC0415

        height, width = _size(image_size)
        given: dict[str, Any] = {
            "scale": scale,
            "mean": _numbers("--mean", mean),
            "std": _numbers("--std", std),
        }
        pictures = image and Pictures(
            input=image,
            height=height,
            width=width,
            short_side=short_side,
            layout=layout,
            is_bgr=bgr,
            output=classes,
            has_softmax=softmax,
            **{key: value for key, value in given.items() if value is not None},
        )
        int8 = calibration and Int8(
            calibration=_arrays("--calibration", calibration),
            calibration_from=calibration.name,
            max_drop=max_accuracy_drop,
        )
        return ImportSpec(
            is_batched=batch,
            pictures=pictures or None,
            time_axes={
                key: _whole("--time-axis", value) for key, value in _pairs("--time-axis", time_axis)
            },
            lengths=lengths,
            mask=mask,
            maximum=max_length,
            tokenizer=tokenizer,
            padding={
                key: _whole("--padding", value) for key, value in _pairs("--padding", padding)
            },
            ranges={key: _range(value) for key, value in _pairs("--range", ranges)},
            labels={key: _lines(Path(value)) for key, value in _label_pairs(labels)},
            golden=_arrays("--golden", golden) if golden else {},
            golden_from=golden.name if golden else "",
            tolerance=tolerance,
            int8=int8 or None,
            command=_command(context),
        )

    imported = _or_exit(file, lambda: _import(file, specify(), to=to, name=name, version=version))
    _print_summary(imported)


def _import(
    file: Path, spec: "ImportSpec", *, to: Path, name: str | None, version: int | None
) -> "Imported":
    # onnx and ONNX Runtime take a second to import.
    from weir.export.onnx_import.publishing import import_onnx  # noqa: PLC0415

    return import_onnx(file, spec, to=to, name=name, version=version)


def _or_exit(file: Path, publish: "Callable[[], Imported]") -> "Imported":
    """Publish, and turn an expected failure into a line and an exit code."""
    from weir.bundle.errors import BundleError  # noqa: PLC0415
    from weir.export import errors  # noqa: PLC0415

    try:
        with Console(stderr=True).status("importing"):
            return publish()
    except errors.ParityError as error:
        raise _failure(file, error, EXIT_PARITY) from None
    except errors.AccuracyError as error:
        raise _failure(file, error, EXIT_ACCURACY) from None
    except (BundleError, errors.ExportError, OSError) as error:
        raise _failure(file, error, EXIT_ERROR) from None


def _failure(file: Path, error: Exception, code: int) -> typer.Exit:
    text = "; ".join(str(error).splitlines())
    typer.echo(f"weir: {file}: {text.removeprefix(f'{file.name}: ')}", err=True)
    return typer.Exit(code)


def _print_summary(imported: "Imported") -> None:
    from weir.export import speed  # noqa: PLC0415 - imports ONNX Runtime

    parity = imported.parity
    # Lines are not wrapped, so that they can be copied and searched.
    console = Console()
    for line in (f"published {imported.path}", *(f"  {each}" for each in imported.remarks)):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    table = Table(show_header=False, box=None)
    table.add_row("proved", "\n".join(imported.checks))
    table.add_row(
        "parity",
        f"max absolute {parity.max_absolute:.2e}, max relative {parity.max_relative:.2e} "
        f"over {parity.rows} rows",
    )
    table.add_row("against", parity.against)
    if cost := imported.quantisation:
        table.add_row("INT8", f"{cost.after:.2%} of {cost.test_rows:,} rows have the class of FP32")
    for each in imported.speeds:
        table.add_row("speed", str(each))
    table.add_row("size", f"{imported.size_bytes / 1e6:.2f} MB, {imported.precision}")
    console.print(table)
    if warning := speed.warning(imported.speeds):
        typer.echo(f"weir: warning: {warning}", err=True)


def _pairs(option: str, texts: Sequence[str] | None) -> list[tuple[str, str]]:
    """Names and values of `NAME=VALUE`; an ONNX name may hold `=` itself."""
    pairs = []
    for text in texts or ():
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value:
            raise typer.BadParameter(f"{option}: expected INPUT=VALUE, got {text!r}")
        pairs.append((name, value))
    return pairs


def _label_pairs(texts: Sequence[str] | None) -> list[tuple[str, str]]:
    """Outputs and files; the output is empty where it is left out."""
    pairs = []
    for text in texts or ():
        name, equals, value = text.partition("=")
        pairs.append(("", text) if not equals or Path(text).exists() else (name, value))
    return pairs


def _lines(file: Path) -> list[str]:
    try:
        # Editors on Windows write a byte order mark, which is no part of the first label.
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"--labels: {file}: expected UTF-8, {error.reason}") from error
    except OSError as error:
        raise typer.BadParameter(f"--labels: {file}: {error.strerror}") from error
    if not lines:
        raise typer.BadParameter(f"--labels: {file}: expected a label on each line, got none")
    return lines


def _arrays(option: str, file: Path) -> dict[str, Any]:
    """The arrays of an .npz file by name; `inputs/` and `outputs/` before a name are left out."""
    import numpy as np  # noqa: PLC0415

    try:
        with np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise typer.BadParameter(f"{option}: {file}: {error.strerror or error}") from error
    except (ValueError, AttributeError, TypeError, EOFError) as error:
        raise typer.BadParameter(f"{option}: {file}: expected an .npz file of arrays") from error
    if not found:
        raise typer.BadParameter(f"{option}: {file}: expected arrays, got none")
    return {
        name.removeprefix("inputs/").removeprefix("outputs/"): array
        for name, array in found.items()
    }


def _whole(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{option}: expected a whole number, got {text!r}") from None


def _range(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    try:
        return float(low), float(high if colon else "")
    except ValueError:
        raise typer.BadParameter(f"--range: expected MIN:MAX, got {text!r}") from None


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(map(float, text.split(",")))
    except ValueError:
        raise typer.BadParameter(f"{option}: expected numbers R,G,B, got {text!r}") from None


def _size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise typer.BadParameter(f"--image-size: expected HEIGHTxWIDTH, got {text!r}")
    return int(height), int(width)


def _command(context: typer.Context) -> str:
    """The command line without directories: a bundle names no local paths."""
    parts = []
    for argument in context.obj or []:
        option, equals, value = argument.rpartition("=")
        last = value if equals else argument
        parts.append(f"{option}{equals}{Path(last).name}" if "/" in last else argument)
    return shlex.join(["weir", "import", *parts])


if __name__ == "__main__":
    sys.exit(main())
