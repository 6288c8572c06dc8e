"""`weir forecast`: the forecast of a series in a CSV file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weir.cli.error_hints import connect, suggest_verb
from weir.cli.figures import require_figure_path, save
from weir.cli.options import (
    AsJson,
    Model,
    ServerOptions,
    Timeout,
    Version,
    model_name,
    takes_server,
)
from weir.cli.text_inputs import decode_utf8, read_columns, read_standard_input
from weir.client import defaults
from weir.client.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from weir.client.results import Forecast

_MIN_STEPS_SHOWN = 60
_STEPS_SHOWN_PER_FORECAST = 5


@takes_server
def forecast(
    data: Annotated[
        str, typer.Argument(metavar="FILE", help="A CSV file; - reads standard input.")
    ],
    *,
    model: Model = "",
    horizon: Annotated[
        int, typer.Option(min=0, help="Number of values; 0: the model's own horizon.")
    ] = 0,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="A column to send; by default every numeric column."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the series and its forecast into this .png or .svg file."),
    ] = None,
    version: Version = "",
    server: ServerOptions,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Forecast the next values of a series.

    The file has a header line and one row per time step, the oldest first.
    """
    series = _read(data, columns or ())
    require_figure_path(plot, "--plot")
    with connect(server, timeout) as client:
        name = model_name(client, model)
        # A single column needs no name: it is the model's column, whatever the file calls it.
        sent = next(iter(series.values())) if len(series) == 1 else series
        with suggest_verb(client, name, "forecast"):
            found = client.forecast(name, sent, horizon=horizon, version=version)
    if as_json:
        typer.echo(json.dumps(_described(found)))
    else:
        Console().print(_table(found, name))
    if plot is not None:
        own = sent if isinstance(sent, list) else series[found.name]
        save(_figure(own, found, name), plot)


def _read(data: str, columns: Sequence[str]) -> Mapping[str, list[float]]:
    if data == "-":
        return read_columns(read_standard_input().splitlines(), "standard input", columns)
    try:
        content = Path(data).read_bytes()
    except OSError as error:
        raise UsageError(f"{data}: {error.strerror or error}") from error
    return read_columns(decode_utf8(content, data).splitlines(), data, columns)


def _described(found: "Forecast") -> dict[str, Any]:
    """The forecast for JSON, with its interval if the model has one."""
    described: dict[str, Any] = {"name": found.name, "values": found.values.tolist()}
    if found.lower is not None and found.upper is not None:
        bounds = {"lower": found.lower.tolist(), "upper": found.upper.tolist()}
        described |= bounds | {"level": found.level}
    return described


def _table(found: "Forecast", model: str) -> Table:
    """A row for each step ahead."""
    table = Table(title=model)
    columns = [found.values]
    table.add_column("ahead", justify="right")
    table.add_column(escape(found.name), justify="right")
    if found.lower is not None and found.upper is not None:
        columns += [found.lower, found.upper]
        table.add_column(f"{found.level:.0%} from", justify="right")
        table.add_column("to", justify="right")
    for step, row in enumerate(zip(*columns, strict=True), 1):
        table.add_row(str(step), *(f"{value:.6g}" for value in row))
    return table


def _figure(series: Sequence[float], found: "Forecast", model: str) -> "Figure":
    """The end of the series and its forecast."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    values = found.values.tolist()
    shown = min(len(series), max(_MIN_STEPS_SHOWN, _STEPS_SHOWN_PER_FORECAST * len(values)))
    first, last = len(series) - shown, len(series) - 1
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(first, last + 1), series[first:], color="black", linewidth=1.2, label="series")
    # The forecast line starts at the last value, so that the lines join.
    ahead = [series[-1], *values]
    axes.plot(
        range(last, last + len(ahead)), ahead, color="#d55e00", linewidth=1.6, label="forecast"
    )
    axes.plot(range(last + 1, last + len(ahead)), values, "o", color="#d55e00", markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("time step, from the start of the file")
    axes.set_ylabel(found.name, parse_math=False)
    axes.set_title(f"{model}: {len(values)} ahead", size=10, loc="left", parse_math=False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure
