"""`weir forecast`: the forecast of a series in a CSV file."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as PrintedTable

from weir.bundle.csv_table import Table, read_table
from weir.bundle.date_column import DateColumn
from weir.bundle.errors import TableError
from weir.bundle.number_format import DecimalMark
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
from weir.client import defaults
from weir.client.errors import InvalidArgument, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from weir.client.results import Forecast

_MIN_STEPS_SHOWN = 60
_STEPS_SHOWN_PER_FORECAST = 5
_FORECAST_COLOUR = "#d55e00"


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
        typer.Option(
            "--column",
            help="A column to send; by default every column of numbers, by its name. A single "
            "--column is the model's column, whatever its name.",
        ),
    ] = None,
    decimal: Annotated[
        DecimalMark | None,
        typer.Option(help="The decimal mark, if the file leaves it open.", show_default=False),
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

    The file is CSV with a header line and one row per time step, the oldest first. If it has a
    column of dates, the forecasts have dates too.
    """
    with _usage_errors():
        table = read_table(_read(data), "standard input" if data == "-" else data, decimal=decimal)
        series = _series(table, columns or ())
        if not series:
            raise UsageError(f"{table.source}: expected a column of numbers, got none")
        for remark in table.remarks:
            _remark(remark)
    require_figure_path(plot, "--plot")
    # A single column that the user names is the model's column, whatever the file calls it.
    chosen = columns[0] if columns and len(columns) == 1 else None
    with connect(server, timeout) as client:
        name = model_name(client, model)
        sent = series[chosen] if chosen is not None else series
        with suggest_verb(client, name, "forecast"), _suggest_column(table):
            found = client.forecast(name, sent, horizon=horizon, version=version)
    if chosen not in (None, found.name):
        _remark(f"{chosen!r} of {table.source} was taken for {found.name!r} of the model")
    dates = _dates_ahead(table, len(found.values))
    if as_json:
        typer.echo(json.dumps(_described(found, dates), ensure_ascii=False))
    else:
        Console().print(_table(found, name, dates))
    if plot is not None:
        own = series[found.name if chosen is None else chosen]
        save(_figure(own, found, name, dates), plot)


def _series(table: Table, columns: Sequence[str]) -> dict[str, list[float]]:
    """The columns that are sent; TableError for a cell that is no number."""
    try:
        return {name: table.numbers(name) for name in columns or table.number_columns}
    except TableError as error:
        if columns or "--decimal" in str(error):
            raise
        raise TableError(f"{error}; --column NAME sends another column alone") from error


class _Dates(NamedTuple):
    """The dates of the rows, and of the forecasts."""

    column: DateColumn
    ahead: list[datetime]

    @property
    def shown(self) -> list[str]:
        """The dates of the forecasts in ISO 8601."""
        return [self.column.show(date) for date in self.ahead]


def _read(data: str) -> bytes:
    if data == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(data).read_bytes()
    except OSError as error:
        raise UsageError(f"{data}: {error.strerror or error}") from error


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Raise an error of the table as UsageError."""
    try:
        yield
    except TableError as error:
        raise UsageError(str(error)) from error


@contextmanager
def _suggest_column(table: Table) -> Iterator[None]:
    """Raise refused columns as UsageError that names the file, and the remedy of a wrong name."""
    try:
        yield
    except InvalidArgument as error:
        text = str(error).removeprefix("columns: ")
        if text == str(error):
            raise
        expected, _, missing = text.partition(", got no ")
        # A model of several columns takes each by its name.
        if text.endswith(", got one without a name") or (
            missing and expected != f"expected {missing}"
        ):
            wanted = text.partition(", got ")[0].removeprefix("expected ")
            raise UsageError(
                f"{table.source}: the model reads the columns {wanted}, each by its name; there "
                f"are {', '.join(map(repr, filter(None, table.names)))}; name them so in the header"
            ) from error
        if not missing:
            raise UsageError(f"{table.source}: {text}") from error
        names = table.value_columns or table.number_columns
        column = f"'{names[0]}'" if " " in names[0] else names[0]
        raise UsageError(
            f"the model forecasts {missing}, {table.source} has {', '.join(map(repr, names))}; if "
            f"that is the same series, say --column {column if len(names) == 1 else 'NAME'}"
        ) from error


def _dates_ahead(table: Table, count: int) -> _Dates | None:
    """The dates of the forecasts; None, with a remark, if the file's dates have no equal steps."""
    column = table.dates
    if column is None:
        return None
    try:
        return _Dates(column, column.following(count))
    except TableError as error:
        _remark(f"{error}; steps are counted instead")
        return None


def _remark(text: str) -> None:
    sys.stderr.write(f"weir: {text}\n")


def _described(found: "Forecast", dates: _Dates | None) -> dict[str, Any]:
    """The forecast for JSON, with its dates and its interval if there are any."""
    described: dict[str, Any] = {"name": found.name}
    if dates is not None:
        described["dates"] = dates.shown
    described["values"] = found.values.tolist()
    if found.lower is not None and found.upper is not None:
        bounds = {"lower": found.lower.tolist(), "upper": found.upper.tolist()}
        described |= bounds | {"level": found.level}
    return described


def _table(found: "Forecast", model: str, dates: _Dates | None) -> PrintedTable:
    """A row for each step ahead."""
    table = PrintedTable(title=escape(model))
    steps = [[str(step)] for step in range(1, len(found.values) + 1)]
    columns = [found.values]
    table.add_column("ahead", justify="right")
    if dates is not None:
        steps = [[*step, date] for step, date in zip(steps, dates.shown, strict=True)]
        table.add_column(escape(dates.column.name))
    table.add_column(escape(found.name), justify="right")
    if found.lower is not None and found.upper is not None:
        columns += [found.lower, found.upper]
        table.add_column(f"{found.level:.0%} from", justify="right")
        table.add_column("to", justify="right")
    for step, row in zip(steps, zip(*columns, strict=True), strict=True):
        table.add_row(*step, *(f"{value:.6g}" for value in row))
    return table


def _figure(
    series: Sequence[float], found: "Forecast", model: str, dates: _Dates | None
) -> "Figure":
    """The end of the series, its forecast and the prediction interval, by date or by step."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    count = len(found.values)
    shown = min(len(series), max(_MIN_STEPS_SHOWN, _STEPS_SHOWN_PER_FORECAST * count))
    if dates is None:
        places: list[Any] = list(range(len(series) + count))
    else:
        places = [_local(date) for date in (*dates.column.dates, *dates.ahead)]
    before, after = places[-count - shown : -count], places[-count - 1 :]
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(before, series[-shown:], color="black", linewidth=1.2, label="series")

    def joined(values: Any) -> list[float]:
        """The values behind the last one of the series, so that the lines join."""
        return [series[-1], *values.tolist()]

    if found.lower is not None and found.upper is not None:
        axes.fill_between(
            after,
            joined(found.lower),
            joined(found.upper),
            color=_FORECAST_COLOUR,
            alpha=0.2,
            linewidth=0,
            label=f"{found.level:.0%} interval",
        )
    axes.plot(after, joined(found.values), color=_FORECAST_COLOUR, linewidth=1.6, label="forecast")
    axes.plot(after[1:], found.values.tolist(), "o", color=_FORECAST_COLOUR, markersize=3)
    if dates is None:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("time step, from the start of the file")
    else:
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(formatter)
        axes.set_xlabel(dates.column.name, parse_math=False)
    axes.set_ylabel(found.name, parse_math=False)
    axes.set_title(f"{model}: {count} ahead", size=10, loc="left", parse_math=False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure


def _local(date: datetime) -> datetime:
    """The date as its place shows it: matplotlib would turn a zone into UTC."""
    return date.replace(tzinfo=None)
