"""Lines of a file as a source: texts, or JSON objects."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from weir.score.errors import ScoringFailed
from weir.score.rows import Part
from weir.score.sources.base import READ_BYTES, Columns, digest_of

TEXT = "text"

_BLOCK_BYTES = 1 << 20
# The first lines name the columns of JSON.
_NAMING_LINES = 100
_GROUP_LINES = 1024
# A longer line is a file of another kind.
_MAX_LINE_BYTES = 64 << 20


@dataclass
class TextSource:
    """The lines of a file as texts."""

    path: Path
    rows: int = field(init=False)
    row_bytes: int = field(init=False)
    columns: Columns = field(init=False)

    def __post_init__(self) -> None:
        """Count the lines."""
        self.rows = _count_lines(self.path)
        self.row_bytes = self.path.stat().st_size // max(1, self.rows)
        self.columns = {TEXT: pa.string()}

    def identity(self) -> str:
        """A digest of name, size and samples."""
        return digest_of([self.path])

    def read(self, columns: Columns, start: int, stop: int) -> Iterator[Part]:
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
    row_bytes: int = field(init=False)
    columns: Columns = field(init=False)

    def __post_init__(self) -> None:
        """Count the lines; the first hundred objects name the columns."""
        self.rows = _count_lines(self.path)
        self.row_bytes = self.path.stat().st_size // max(1, self.rows)
        values: dict[str, list[object]] = {}
        for _, lines in _line_groups(self.path, 0, min(self.rows, _NAMING_LINES)):
            for line in lines:
                with suppress(ValueError):
                    for name, value in _object(line).items():
                        values.setdefault(name, []).append(value)
        self.columns = {name: _text_type(found) for name, found in values.items()}

    def identity(self) -> str:
        """A digest of name, size and samples."""
        return digest_of([self.path])

    def read(self, columns: Columns, start: int, stop: int) -> Iterator[Part]:
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


def _text_type(values: list[object]) -> pa.DataType | None:
    """The type of a key whose values are texts or lists of texts; None for others."""
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, str) for value in given):
        return pa.string()
    leaves = [leaf for value in given if isinstance(value, list) for leaf in value]
    if (
        leaves
        and all(isinstance(leaf, str) for leaf in leaves)
        and all(isinstance(value, list) for value in given)
    ):
        return pa.list_(pa.string())
    return None


def _flat(value: object) -> object:
    """Nested lists as one flat list; ValueError if their lengths differ."""
    if isinstance(value, list) and any(isinstance(each, list) for each in value):
        flat: list[object] = np.array(value).reshape(-1).tolist()
        return flat
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
    # Of a tensor of fixed shape, which may be nested or flat.
    is_flat = pa.types.is_fixed_size_list(kind)
    for position, value in enumerate(values):
        try:
            fitting.append(pa.scalar(_flat(value) if is_flat else value, kind).as_py())
        except (pa.ArrowException, OverflowError, ValueError, TypeError):
            fitting.append(None)
            shown = json.dumps(value)
            shown = shown if len(shown) <= 64 else shown[:61] + "..."
            errors.setdefault(position, f"{name}: expected {kind}, got {shown}")
    return pa.array(fitting, kind)


def _line_groups(path: Path, start: int, stop: int) -> Iterator[tuple[int, list[bytes]]]:
    """Some lines at a time, without their ends, with the number of the first."""
    with path.open("rb") as file:
        for _ in range(start):
            _read_line(path, file)
        at = start
        while at < stop:
            lines: list[bytes] = []
            size = 0
            while len(lines) < min(_GROUP_LINES, stop - at) and size < READ_BYTES:
                line = _read_line(path, file)
                if not line:
                    raise ScoringFailed(f"{path}: the file became shorter")
                lines.append(line.rstrip(b"\r\n"))
                size += len(line)
            yield at, lines
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
        while block := file.read(_BLOCK_BYTES):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")
