"""Time series: columns of a CSV file, plain or gzipped, as numbers in the order of time.

    "Month","Sunspots"        a header line names the columns, quoted or not
    "1749-01",58.0            one row per time step, the oldest first

`weir.bundle.csv_table` reads the file. Only the requested columns need to be numbers.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weir.bundle.csv_table import Table, list_names, read_table
from weir.bundle.errors import TableError
from weir.bundle.number_format import DecimalMark
from weir.training.data.download import DataFolders, RemoteFile, checksum, locate
from weir.training.errors import DataError

logger = logging.getLogger(__name__)

SUNSPOTS = "sunspots"
SUNSPOT_COLUMN = "Sunspots"
FOLDER = "timeseries"
FILE = RemoteFile(
    "https://raw.githubusercontent.com/jbrownlee/Datasets/d20fcb6/monthly-sunspots.csv",
    45_039,
    "c4ec8cc57d9f6fb6ecdb3e1f37f25b6f4badd5124c55931052b0cd2fc3bc71f3",
)
SERIES_SETS = (SUNSPOTS,)
"""The names of series sets; `load_series` takes any other name for a path."""


@dataclass(frozen=True, slots=True)
class SeriesData:
    """Columns of one file.

    columns: their names, the column to forecast first.
    values: (steps, columns), the oldest first.
    checksum: SHA-256 over the file.
    dates: of the steps, without their zone; None if the file has none at equal steps.
    """

    name: str
    columns: tuple[str, ...]
    values: NDArray[np.float64]
    checksum: str
    dates: tuple[datetime, ...] | None = None


def load_series(
    name: str,
    value: str | None,
    exogenous: Sequence[str] = (),
    *,
    decimal: DecimalMark | None = None,
) -> SeriesData:
    """Load columns of a named set or of a CSV file; errors as `read_table` and `locate`.

    Args:
        name: one of `SERIES_SETS`, or the path of a CSV file.
        value: the column to forecast. None: the default column of a named set; of a file its only
            column of numbers, or an error that lists the columns.
        exogenous: other columns that the value may depend on.
        decimal: the decimal mark, where the file leaves it open.
    """
    is_named = name == SUNSPOTS
    path = locate(FOLDER, FILE, DataFolders.from_environment()) if is_named else Path(name)
    if not path.is_file():
        raise DataError(f"{name}: neither a series ({', '.join(SERIES_SETS)}) nor a CSV file")
    try:
        table = read_table(path.read_bytes(), str(path), decimal=decimal)
        if value is None:
            value = SUNSPOT_COLUMN if is_named else _only_value(table, exogenous)
        columns = (value, *exogenous)
        values = [table.numbers(column) for column in columns]
        for remark in table.remarks:
            logger.warning("%s", remark)
        dates = _dates_at_equal_steps(table)
    except TableError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(f"{name}: expected a CSV file, got {error}") from error
    return SeriesData(
        name=name if is_named else str(path.resolve()),
        columns=columns,
        values=np.array(values, np.float64).T,
        checksum=FILE.sha256 if is_named else checksum(path),
        dates=dates,
    )


def _only_value(table: Table, exogenous: Sequence[str]) -> str:
    """The only column of numbers that is not exogenous; DataError if there are others."""
    found = [name for name in table.value_columns if name not in exogenous]
    if len(found) != 1:
        names = list_names(found or table.names)
        raise DataError(
            f"{table.source}: expected the column to forecast (--value); there are {names}"
        )
    logger.warning("%s: the only column of numbers is forecast: %s", table.source, found[0])
    return found[0]


def _dates_at_equal_steps(table: Table) -> tuple[datetime, ...] | None:
    """The dates, without their zone; None, with a warning, if they have no equal steps."""
    column = table.dates
    if column is None:
        return None
    try:
        column.step()
    except TableError as error:
        logger.warning("%s; rows are read as equal steps", error)
        return None
    return tuple(date.replace(tzinfo=None) for date in column.dates)
