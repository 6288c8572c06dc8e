"""The form of an input, by its name, and its source.

data.parquet, folder of *.parquet   columns
lines.jsonl                         columns by the keys of the objects, one object a line
arrays.npz                          a column an array, one row for each entry of its first axis
texts.txt                           the column `text`, one text a line
folder of *.jpg, *.jpeg, *.png      the columns `file` and `picture`, by the files' names
"""

import os
from pathlib import Path

from weir.client.errors import UsageError
from weir.score.errors import ScoringFailed
from weir.score.sources.arrays import ArraysSource
from weir.score.sources.base import Source
from weir.score.sources.lines import JsonLinesSource, TextSource
from weir.score.sources.parquet import ParquetSource
from weir.score.sources.pictures import SUFFIXES, PicturesSource

_JSON_LINES = (".jsonl", ".ndjson")
_FORMS = "a .parquet, .jsonl, .npz or .txt file, or a folder of pictures or Parquet files"


def open_source(path: Path) -> Source:
    """The source at a path.

    Raises:
        UsageError: there is nothing to score, or it has another form.
        ScoringFailed: it is damaged.
    """
    try:
        if path.is_dir():
            return _open_folder(path)
        if not path.exists():
            raise UsageError(f"--in: {path}: expected {_FORMS}, got no such file")
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            return ParquetSource([path])
        if suffix in _JSON_LINES:
            return JsonLinesSource(path)
        if suffix == ".npz":
            return ArraysSource(path)
        if suffix == ".txt":
            return TextSource(path)
    except OSError as error:
        raise ScoringFailed(f"{path}: {error.strerror or error}") from error
    raise UsageError(f"--in: {path}: expected {_FORMS}")


def _open_folder(folder: Path) -> Source:
    names = sorted(
        os.path.relpath(Path(directory) / name, folder)
        for directory, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    )
    tables = [name for name in names if name.lower().endswith(".parquet")]
    pictures = [name for name in names if name.lower().endswith(SUFFIXES)]
    if tables and pictures:
        raise UsageError(f"--in: {folder}: expected pictures or Parquet files, got both")
    if tables:
        return ParquetSource([folder / name for name in tables])
    if not pictures:
        raise UsageError(f"--in: {folder}: expected {_FORMS}, got neither in the folder")
    return PicturesSource(folder, pictures)
