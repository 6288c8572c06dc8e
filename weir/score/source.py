"""Sources: the rows of a file or a folder, read in parts, from any row on.

    data.parquet, folder of *.parquet   columns
    lines.jsonl                         columns by the keys of the objects, one object a line
    arrays.npz                          a column an array, one row for each entry of its first axis
    texts.txt                           the column `text`, one text a line
    folder of *.jpg, *.jpeg, *.png      the columns `file` and `picture`, by the files' names

Rules:
- Memory is that of a few parts: no file is read whole, except a compressed array.
- Each line and each picture is a row, in the order of the file or of the sorted names.
- A line or a file that cannot be read is the error of its row. A table that cannot be read ends
  the run.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weir.client.errors import UsageError
from weir.score.errors import ScoringFailed
from weir.score.rows import Part

TEXT = "text"
PICTURE = "picture"
FILE = "file"

PICTURES = (".jpg", ".jpeg", ".png")
_JSON_LINES = (".jsonl", ".ndjson")
_FORMS = "a .parquet, .jsonl, .npz or .txt file, or a folder of pictures or Parquet files"
# A batch of the Parquet reader; a part is put together of several, or cut out of one.
_READ_ROWS = 4096
_BUFFER_BYTES = 1 << 20
# Of each end of a file, to recognise it at a resume.
_SAMPLE_BYTES = 1 << 16
# A longer line is a file of another kind.
_MAX_LINE_BYTES = 64 << 20


class Source(Protocol):
    """Rows to score.

    Attributes:
        rows: their number.
        columns: the type of each column; None where it depends on what is asked for (JSON).
    """

    rows: int
    columns: Mapping[str, pa.DataType | None]

    def identity(self) -> str:
        """What tells this input from another one."""

    def read(
        self, columns: Mapping[str, pa.DataType | None], start: int, stop: int
    ) -> Iterator[Part]:
        """The rows from `start` to `stop`, in parts of any size.

        Args:
            columns: to read, each with its type; None for that of the source.
        """


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


def in_parts(parts: Iterator[Part], rows: int) -> Iterator[Part]:
    """The same rows in parts of `rows`, the last one shorter."""
    held: list[Part] = []
    count = 0
    for part in parts:
        rest = part
        while count + rest.table.num_rows >= rows:
            taken = rows - count
            yield _joined([*held, _cut(rest, 0, taken)])
            rest = _cut(rest, taken, rest.table.num_rows)
            held, count = [], 0
        if rest.table.num_rows:
            held.append(rest)
            count += rest.table.num_rows
    if held:
        yield _joined(held)


def _cut(part: Part, start: int, stop: int) -> Part:
    errors = {at - start: text for at, text in part.errors.items() if start <= at < stop}
    return Part(part.start + start, part.table.slice(start, stop - start), errors)


def _joined(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    first = parts[0].start
    errors = {at + part.start - first: text for part in parts for at, text in part.errors.items()}
    return Part(first, pa.concat_tables([part.table for part in parts]), errors)


@dataclass
class ParquetSource:
    """The rows of Parquet files, one file after the other."""

    files: Sequence[Path]
    rows: int = field(init=False)
    columns: Mapping[str, pa.DataType | None] = field(init=False)

    def __post_init__(self) -> None:
        """Read the files' metadata."""
        self._counts = []
        schema = None
        for file in self.files:
            with _open_parquet(file) as opened:
                self._counts.append(opened.metadata.num_rows)
                found = opened.schema_arrow.remove_metadata()
            schema = schema or found
            if found != schema:
                raise UsageError(f"--in: {file}: expected the columns of {self.files[0]}")
        self.rows = sum(self._counts)
        self.columns = dict(zip(schema.names, schema.types, strict=True)) if schema else {}

    def identity(self) -> str:
        """A digest of names, sizes and samples."""
        return _digest(self.files)

    def read(
        self, columns: Mapping[str, pa.DataType | None], start: int, stop: int
    ) -> Iterator[Part]:
        """The rows of the files, a few thousand at a time."""
        first = 0
        for file, count in zip(self.files, self._counts, strict=True):
            if first < stop and start < first + count:
                own = max(start - first, 0), min(stop - first, count)
                for at, table in _read_parquet(file, list(columns), *own):
                    yield Part(first + at, table)
            first += count


def _open_parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(
            file, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
    except pa.ArrowInvalid as error:
        raise ScoringFailed(f"{file}: expected a Parquet file: {_first_line(error)}") from error


def _read_parquet(
    file: Path, columns: list[str], start: int, stop: int
) -> Iterator[tuple[int, pa.Table]]:
    """Tables of the rows from `start` to `stop`, each with the number of its first row."""
    with _open_parquet(file) as opened:
        groups, first = [], 0
        at = None
        for group in range(opened.num_row_groups):
            count = opened.metadata.row_group(group).num_rows
            if first < stop and start < first + count:
                groups.append(group)
                at = first if at is None else at
            first += count
        position = at or 0
        try:
            for batch in opened.iter_batches(_READ_ROWS, row_groups=groups, columns=columns):
                begin, end = max(start - position, 0), min(stop - position, batch.num_rows)
                if begin < end:
                    table = pa.Table.from_batches([batch.slice(begin, end - begin)])
                    yield position + begin, table.select(columns)
                position += batch.num_rows
                if position >= stop:
                    return
        except (pa.ArrowException, OSError) as error:
            raise ScoringFailed(f"{file}: damaged: {_first_line(error)}") from error


@dataclass
class TextSource:
    """The lines of a file as texts."""

    path: Path
    rows: int = field(init=False)
    columns: Mapping[str, pa.DataType | None] = field(init=False)

    def __post_init__(self) -> None:
        """Count the lines."""
        self.rows = _count_lines(self.path)
        self.columns = {TEXT: pa.string()}

    def identity(self) -> str:
        """A digest of name, size and samples."""
        return _digest([self.path])

    def read(
        self, columns: Mapping[str, pa.DataType | None], start: int, stop: int
    ) -> Iterator[Part]:
        """The lines, a few thousand at a time."""
        del columns  # there is one
        for at, lines in _line_groups(self.path, start, stop):
            texts: list[str | None] = []
            errors = {}
            for position, line in enumerate(lines):
                try:
                    texts.append(_text(line))
                except UnicodeDecodeError:
                    texts.append(None)
                    errors[position] = "expected UTF-8, got other bytes"
            yield Part(at, pa.table({TEXT: pa.array(texts, pa.string())}), errors)


@dataclass
class JsonLinesSource:
    """The objects of a file, one a line; a key that an object lacks is null."""

    path: Path
    rows: int = field(init=False)
    columns: Mapping[str, pa.DataType | None] = field(init=False)

    def __post_init__(self) -> None:
        """Count the lines; the first object names the columns."""
        self.rows = _count_lines(self.path)
        self.columns = {}
        for _, lines in _line_groups(self.path, 0, min(self.rows, 100)):
            for line in lines:
                try:
                    self.columns |= dict.fromkeys(_object(line))
                except ValueError:
                    continue

    def identity(self) -> str:
        """A digest of name, size and samples."""
        return _digest([self.path])

    def read(
        self, columns: Mapping[str, pa.DataType | None], start: int, stop: int
    ) -> Iterator[Part]:
        """The objects, a few thousand at a time."""
        for at, lines in _line_groups(self.path, start, stop):
            errors: dict[int, str] = {}
            objects: list[Mapping[str, object]] = []
            for position, line in enumerate(lines):
                try:
                    objects.append(_object(line))
                except ValueError as error:
                    objects.append({})
                    errors[position] = str(error)
            arrays = {
                name: _json_column(name, [each.get(name) for each in objects], kind, errors)
                for name, kind in columns.items()
            }
            yield Part(at, pa.table(arrays), errors)


def _object(line: bytes) -> dict[str, object]:
    """The object of a line; ValueError says what it is instead."""
    try:
        value = json.loads(_text(line))
    except UnicodeDecodeError:
        raise ValueError("expected UTF-8, got other bytes") from None
    except RecursionError:
        raise ValueError("expected a JSON object, got one nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"expected a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")  # noqa: TRY004
    return value


def _json_column(
    name: str, values: list[object], kind: pa.DataType | None, errors: dict[int, str]
) -> pa.Array:
    """The values of a key, or their JSON without a type; a misfit is the error of its row."""
    if kind is None:
        texts = [None if value is None else json.dumps(value) for value in values]
        return pa.array(texts, pa.string())
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        fitting: list[object] = []
    for position, value in enumerate(values):
        try:
            fitting.append(pa.scalar(value, kind).as_py())
        except (pa.ArrowException, OverflowError, ValueError, TypeError):
            fitting.append(None)
            shown = json.dumps(value)
            shown = shown if len(shown) <= 64 else shown[:61] + "..."
            errors.setdefault(position, f"{name}: expected {kind}, got {shown}")
    return pa.array(fitting, kind)


@dataclass
class ArraysSource:
    """The arrays of a .npz file, read row by row where they are not compressed."""

    path: Path
    rows: int = field(init=False)
    columns: Mapping[str, pa.DataType | None] = field(init=False)

    def __post_init__(self) -> None:
        """Read the arrays' headers."""
        self._arrays = {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                for member in archive.namelist():
                    with archive.open(member) as file:
                        name = member.removesuffix(".npy")
                        self._arrays[name] = _read_header(f"{self.path}: {name}", file)
        except (zipfile.BadZipFile, ValueError) as error:
            raise ScoringFailed(f"{self.path}: expected a .npz file: {error}") from error
        counts = {name: shape[0] for name, (shape, _) in self._arrays.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
            raise UsageError(
                f"--in: {self.path}: expected arrays of equally many rows, got {listed}"
            )
        self.rows = next(iter(counts.values()), 0)
        self.columns = {
            name: _nested(shape[1:], dtype) for name, (shape, dtype) in self._arrays.items()
        }

    def identity(self) -> str:
        """A digest of name, size and samples."""
        return _digest([self.path])

    def read(
        self, columns: Mapping[str, pa.DataType | None], start: int, stop: int
    ) -> Iterator[Part]:
        """The rows, a few thousand at a time, or a few megabytes."""
        with zipfile.ZipFile(self.path) as archive:
            files = {name: archive.open(f"{name}.npy") for name in columns}
            widths = {}
            for name, file in files.items():
                shape, dtype = _read_header(name, file)
                widths[name] = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
                file.seek(file.tell() + start * widths[name])
            step = max(1, min(_READ_ROWS, (8 << 20) // max(1, sum(widths.values()))))
            for at in range(start, stop, step):
                count = min(step, stop - at)
                table = {
                    name: self._column(name, file.read(count * widths[name]), count)
                    for name, file in files.items()
                }
                yield Part(at, pa.table(table))

    def _column(self, name: str, data: bytes, rows: int) -> pa.Array:
        shape, dtype = self._arrays[name]
        array = np.frombuffer(data, dtype)
        if array.size != rows * int(np.prod(shape[1:], dtype=np.int64)):
            raise ScoringFailed(f"{self.path}: {name}: the array ends too early")
        flat = array.astype(dtype.newbyteorder("="), copy=False)
        column = pa.array(flat.tolist() if dtype.kind in "SU" else flat)
        for size in reversed(shape[1:]):
            column = pa.FixedSizeListArray.from_arrays(column, size)
        return column


def _read_header(where: str, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and datatype of the array of a .npy file, which is then at its first value."""
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, is_fortran, dtype = read(file)
    if is_fortran and len(shape) > 1:
        raise UsageError(f"--in: {where}: expected rows one after the other (C order)")
    if not shape:
        raise UsageError(f"--in: {where}: expected a row for each entry of axis 0, got one value")
    if dtype.kind not in "biufSU":
        raise UsageError(f"--in: {where}: expected numbers or texts, got {dtype}")
    return shape, dtype


def _nested(shape: Sequence[int], dtype: np.dtype[Any]) -> pa.DataType:
    kind = pa.from_numpy_dtype(dtype) if dtype.kind not in "SU" else pa.string()
    for size in reversed(shape):
        kind = pa.list_(kind, size)
    return kind


@dataclass
class PicturesSource:
    """The pictures below a folder, by name."""

    folder: Path
    names: Sequence[str]
    rows: int = field(init=False)
    columns: Mapping[str, pa.DataType | None] = field(init=False)

    def __post_init__(self) -> None:
        """Count the pictures."""
        self.rows = len(self.names)
        self.columns = {FILE: pa.string(), PICTURE: pa.binary()}

    def identity(self) -> str:
        """A digest of names and sizes."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(f"{name}\0{(self.folder / name).stat().st_size}\n".encode())
        return digest.hexdigest()

    def read(
        self, columns: Mapping[str, pa.DataType | None], start: int, stop: int
    ) -> Iterator[Part]:
        """The files, sixteen at a time."""
        for at in range(start, stop, 16):
            names = self.names[at : min(at + 16, stop)]
            table: dict[str, pa.Array] = {}
            errors: dict[int, str] = {}
            if FILE in columns:
                table[FILE] = pa.array(names, pa.string())
            if PICTURE in columns:
                table[PICTURE] = self._contents(names, errors)
            yield Part(at, pa.table(table), errors)

    def _contents(self, names: Sequence[str], errors: dict[int, str]) -> pa.Array:
        contents: list[bytes | None] = []
        for position, name in enumerate(names):
            try:
                contents.append((self.folder / name).read_bytes())
            except OSError as error:
                contents.append(None)
                errors[position] = f"{name}: {error.strerror}"
        return pa.array(contents, pa.binary())


def _open_folder(folder: Path) -> Source:
    names = sorted(
        os.path.relpath(Path(directory) / name, folder)
        for directory, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    )
    tables = [name for name in names if name.lower().endswith(".parquet")]
    pictures = [name for name in names if name.lower().endswith(PICTURES)]
    if tables and pictures:
        raise UsageError(f"--in: {folder}: expected pictures or Parquet files, got both")
    if tables:
        return ParquetSource([folder / name for name in tables])
    if not pictures:
        raise UsageError(f"--in: {folder}: expected {_FORMS}, got neither in the folder")
    return PicturesSource(folder, pictures)


def _line_groups(path: Path, start: int, stop: int) -> Iterator[tuple[int, list[bytes]]]:
    """Some lines at a time, without their ends, with the number of the first."""
    with path.open("rb") as file:
        for _ in range(start):
            _read_line(path, file)
        at = start
        while at < stop:
            count = min(1024, stop - at)
            lines = list(islice(iter(lambda: _read_line(path, file), b""), count))
            if not lines:
                raise ScoringFailed(f"{path}: the file became shorter")
            yield at, [line.rstrip(b"\r\n") for line in lines]
            at += len(lines)


def _read_line(path: Path, file: IO[bytes]) -> bytes:
    line = file.readline(_MAX_LINE_BYTES)
    if len(line) == _MAX_LINE_BYTES:
        raise ScoringFailed(f"{path}: expected lines of at most {_MAX_LINE_BYTES} bytes")
    return line


def _text(line: bytes) -> str:
    return line.decode("utf-8-sig")


def _count_lines(path: Path) -> int:
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_BUFFER_BYTES):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
