"""Binding: which columns of the input a model reads, and as what. Pure.

    tensors   a column for each input of the model
    text      a column of texts, or of texts that are split into tokens
    picture   a column of encoded pictures, of structs with the field `bytes`, or of file names

Columns are found by the names of the model's inputs, by `text` and `picture`, or as the only one of
their type; `--columns` names them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.types as kinds

from weir.client.errors import UsageError
from weir.score import columns as cells
from weir.score.sources.base import Columns, Source
from weir.score.sources.lines import TEXT
from weir.score.sources.pictures import PICTURE, PicturesSource
from weir.server.runtime.signature import TensorSpec

_BYTES = "bytes"
_PATH = "path"


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """What a model can read.

    Attributes:
        required: tensors that each row needs.
        optional: tensors that a row may lack.
    """

    name: str
    required: Sequence[TensorSpec]
    optional: Sequence[TensorSpec] = ()
    takes_texts: bool = False
    takes_pictures: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """The columns of the input that are read.

    Attributes:
        columns: by the name of a tensor, or by `text` or `picture`.
        types: of each column as it is read; None: as the source has it.
        row_bytes: the mean size of a row of the source.
    """

    kind: Literal["tensors", "text", "picture"]
    columns: Mapping[str, str]
    types: Columns
    row_bytes: int = 0


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """The columns by name of `--columns INPUT=COLUMN`, which may be repeated or have commas.

    Raises:
        UsageError: another form, or the same name twice.
    """
    named: dict[str, str] = {}
    for text in (each for given in texts for each in given.split(",")):
        name, equals, column = text.partition("=")
        if not (name and equals and column):
            raise UsageError(f"--columns: expected INPUT=COLUMN, got {text!r}")
        if name in named:
            raise UsageError(f"--columns: expected {name} once, got it twice")
        named[name] = column
    return named


def bind(model: ModelInputs, source: Source, named: Mapping[str, str]) -> Binding:
    """The columns of a source for a model.

    Args:
        named: columns by `text`, `picture` or the name of a tensor, as `--columns` gives them.

    Raises:
        UsageError: a column is missing, or has a type that the model does not take.
    """
    for name, column in named.items():
        if column not in source.columns:
            raise UsageError(
                f"--columns {name}={column}: expected one of {_listed(source.columns)}"
            )
    specs = {spec.name: spec for spec in (*model.required, *model.optional)}
    if strays := [name for name in named if name not in (TEXT, PICTURE, *specs)]:
        expected = [*specs, *([TEXT] * model.takes_texts), *([PICTURE] * model.takes_pictures)]
        raise UsageError(f"--columns {strays[0]}=…: expected one of {_listed(expected)}")
    if (text := _text_column(model, source, named)) is not None:
        types: Columns = {text: _text_type(source.columns[text])}
        return Binding("text", {TEXT: text}, types, source.row_bytes)
    if (picture := _picture_column(model, source, named)) is not None:
        types = {picture: _picture_type(source, picture)}
        return Binding("picture", {PICTURE: picture}, types, source.row_bytes)
    return _bind_tensors(model, source, named)


def _bind_tensors(model: ModelInputs, source: Source, named: Mapping[str, str]) -> Binding:
    found = {}
    for spec in (*model.required, *model.optional):
        column = named.get(spec.name, spec.name)
        if column in source.columns:
            found[spec.name] = column
    missing = [spec.name for spec in model.required if spec.name not in found]
    if len(model.required) == 1 and missing and len(source.columns) == 1:
        found[missing.pop()] = next(iter(source.columns))
    if missing:
        also = f", or the column {TEXT!r}" if model.takes_texts else ""
        also += f", or the column {PICTURE!r}" if model.takes_pictures else ""
        raise UsageError(
            f"model {model.name!r}: expected columns for {_listed(missing)}{also}, got "
            f"{_listed(source.columns)}; --columns INPUT=COLUMN names them"
        )
    types: dict[str, pa.DataType | None] = {}
    for spec in (*model.required, *model.optional):
        if spec.name not in found:
            continue
        column, kind = found[spec.name], source.columns[found[spec.name]]
        if kind is not None:
            cells.check_column(spec.name, column, spec, kind)
        types[column] = kind or _json_type(spec)
    return Binding("tensors", found, types, source.row_bytes)


def _json_type(spec: TensorSpec) -> pa.DataType:
    """The type of a JSON value: flat if the shape is fixed, since both forms are taken."""
    kind = cells.value_type(spec.datatype)
    own = spec.axes[1:]
    fixed = [axis for axis in own if isinstance(axis, int)]
    if len(own) > 1 and len(fixed) == len(own):
        return pa.list_(kind, math.prod(fixed))
    for _ in own:
        kind = pa.list_(kind)
    return kind


def _text_column(model: ModelInputs, source: Source, named: Mapping[str, str]) -> str | None:
    if not model.takes_texts:
        return None
    if TEXT in named:
        column, kind = named[TEXT], source.columns[named[TEXT]]
        if kind is not None and not _holds_text(kind):
            raise UsageError(f"--columns {TEXT}={column}: expected texts, the column has {kind}")
        return column
    # The names of pictures in a folder are no texts to score.
    if named or _has_tensors(model, source) or isinstance(source, PicturesSource):
        return None
    return _only(source, TEXT, _holds_text)


def _picture_column(model: ModelInputs, source: Source, named: Mapping[str, str]) -> str | None:
    if not model.takes_pictures:
        return None
    if PICTURE in named:
        column, kind = named[PICTURE], source.columns[named[PICTURE]]
        if kind is not None and not (_holds_picture(kind) or cells.is_text(kind)):
            raise UsageError(
                f"--columns {PICTURE}={column}: expected pictures or file names, "
                f"the column has {kind}"
            )
        return column
    inputs = [named.get(spec.name, spec.name) for spec in model.required]
    if all(name in source.columns for name in inputs):
        # A struct or bytes of any size under the input's name are encoded pictures; bytes that the
        # user has named as the input are its values.
        kind = source.columns[inputs[0]]
        is_named = any(spec.name in named for spec in model.required) and not kinds.is_struct(kind)
        return inputs[0] if kind and _holds_picture(kind) and not is_named else None
    if named:
        return None
    if PICTURE in source.columns and _is_text_type(source.columns[PICTURE]):
        return PICTURE  # the names of files
    return _only(source, PICTURE, _holds_picture)


def _has_tensors(model: ModelInputs, source: Source) -> bool:
    return bool(model.required) and all(
        spec.name in source.columns and not _is_text_type(source.columns[spec.name])
        for spec in model.required
    )


def _is_text_type(kind: pa.DataType | None) -> bool:
    return kind is not None and _holds_text(kind)


def _only(source: Source, name: str, fits: Callable[[pa.DataType], bool]) -> str | None:
    """The column of this name, or the only one whose type fits."""
    if name in source.columns:
        kind = source.columns[name]
        return name if kind is None or fits(kind) else None
    fitting = [column for column, kind in source.columns.items() if kind is not None and fits(kind)]
    return fitting[0] if len(fitting) == 1 else None


def _holds_text(kind: pa.DataType) -> bool:
    return cells.is_text(kind) or (cells.is_list(kind) and cells.is_text(kind.value_type))


def _holds_picture(kind: pa.DataType) -> bool:
    """Whether cells are encoded pictures; bytes of a fixed size are raw values."""
    if kinds.is_struct(kind):
        return any(kind.field(at).name == _BYTES for at in range(kind.num_fields))
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))


def _text_type(kind: pa.DataType | None) -> pa.DataType:
    return pa.string() if kind is None else kind


def _picture_type(source: Source, column: str) -> pa.DataType:
    kind = source.columns[column]
    return pa.string() if kind is None else kind


def read_picture(value: object, folder: Path) -> bytes:
    """The encoded picture of a cell, or of the file that it names.

    Args:
        folder: that names start from; files outside it are not read.

    Raises:
        ValueError: there is none.
    """
    if isinstance(value, Mapping):
        value = value.get(_BYTES) or value.get(_PATH)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("expected a picture, got null")  # noqa: TRY004 - of a row, no bug
    path = (folder / value).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{value}: expected a file in the folder of the table, or below it")
    if not path.is_file():
        raise ValueError(f"{value}: expected a file, got none")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{value}: {error.strerror}") from None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
