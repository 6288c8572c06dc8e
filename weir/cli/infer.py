"""`weir infer`: one inference request."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from weir.cli.error_hints import connect, requires, suggest_models
from weir.cli.options import AsJson, ServerOptions, Timeout, Version, takes_server
from weir.client import defaults
from weir.client.errors import UsageError

if TYPE_CHECKING:
    from weir.client.results import Answer, Array


@takes_server
def infer(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    *,
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            "-i",
            metavar="NAME=VALUE",
            help="A .npy file or a JSON array; NAME= is optional for a model of one input.",
        ),
    ],
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", help="An output to request; by default all."),
    ] = None,
    version: Version = "",
    server: ServerOptions,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Write the outputs to this .npz file.")] = None,
) -> None:
    """Send one inference request and print its answer."""
    if out is not None and out.suffix != ".npz":
        raise UsageError(f"--out: expected a name that ends in .npz, got {out}")
    with requires("client"):
        from weir.cli.inputs import parse_inputs
    with connect(server, timeout) as client, suggest_models(client, model):
        arrays = parse_inputs(inputs, client.metadata(model, version))
        answer = client.infer(model, arrays, version=version, outputs=outputs)
    if out is not None:
        _save(answer, out)
    if as_json:
        typer.echo(json.dumps(_to_json(answer)))
    else:
        Console().print(_table(answer))


def _to_json(answer: "Answer") -> dict[str, object]:
    return {
        "model": answer.model,
        "version": answer.version,
        "outputs": {
            name: {"dtype": _dtype(array), "shape": array.shape, "data": _readable(array)}
            for name, array in answer.items()
        },
    }


def _table(answer: "Answer") -> Table:
    table = Table("output", "dtype", "shape", "values", title=f"{answer.model} {answer.version}")
    for name, array in answer.items():
        values = str(array if _dtype(array) != "bytes" else _readable(array))
        table.add_row(name, _dtype(array), " x ".join(map(str, array.shape)), values)
    return table


def _dtype(array: "Array") -> str:
    return "bytes" if array.dtype == object else array.dtype.name


def _readable(array: "Array") -> object:
    """Nested lists, with text for bytes."""

    def text(value: object) -> object:
        if isinstance(value, list):
            return [text(one) for one in value]
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    return text(array.tolist())


def _save(answer: "Answer", out: Path) -> None:
    import numpy as np

    # An object array would need pickle; a fixed-width bytes array does not.
    arrays = {
        name: array.astype("S") if array.dtype == object else array
        for name, array in answer.items()
    }
    try:
        np.savez(out, allow_pickle=False, **arrays)
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}") from error
