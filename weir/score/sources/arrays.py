"""The arrays of a .npz file as a source."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from weir.client.errors import UsageError
from weir.score.errors import ScoringFailed
from weir.score.rows import Part
from weir.score.sources.base import Columns, digest_of, rows_at_a_time


@dataclass
class ArraysSource:
    """The arrays of a .npz file, read row by row where they are not compressed."""

    path: Path
    rows: int = field(init=False)
    row_bytes: int = field(init=False)
    columns: Columns = field(init=False)

    def __post_init__(self) -> None:
        """Read the arrays' headers."""
        self._arrays = {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                for member in archive.namelist():
                    if not member.endswith(".npy"):
                        raise ScoringFailed(f"{self.path}: expected arrays, got {member!r}")
                    with archive.open(member) as file:
                        name = member.removesuffix(".npy")
                        self._arrays[name] = _read_header(f"{self.path}: {name}", file)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise ScoringFailed(f"{self.path}: expected a .npz file: {error}") from error
        counts = {name: shape[0] for name, (shape, _) in self._arrays.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
            raise UsageError(
                f"--in: {self.path}: expected arrays of equally many rows, got {listed}"
            )
        self.rows = next(iter(counts.values()), 0)
        self.row_bytes = sum(_width(*each) for each in self._arrays.values())
        self.columns = {
            name: _nested(shape[1:], dtype) for name, (shape, dtype) in self._arrays.items()
        }

    def identity(self) -> str:
        """A digest of name, size and samples."""
        return digest_of([self.path])

    def read(self, columns: Columns, start: int, stop: int) -> Iterator[Part]:
        """The rows, a few thousand at a time, or a few megabytes."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                files = {name: archive.open(f"{name}.npy") for name in columns}
                widths = {name: _width(*self._arrays[name]) for name in columns}
                for name, file in files.items():
                    _read_header(name, file)
                    file.seek(file.tell() + start * widths[name])
                step = rows_at_a_time(sum(widths.values()))
                for at in range(start, stop, step):
                    count = min(step, stop - at)
                    table = {
                        name: self._column(name, file.read(count * widths[name]), count)
                        for name, file in files.items()
                    }
                    yield Part(at, pa.table(table))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ScoringFailed(f"{self.path}: damaged: {error}") from error

    def _column(self, name: str, data: bytes, rows: int) -> pa.Array:
        shape, dtype = self._arrays[name]
        if len(data) != rows * _width(shape, dtype):
            raise ScoringFailed(f"{self.path}: {name}: the array ends too early")
        flat = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
        if dtype.kind == "S":
            texts = [text.decode("utf-8", "backslashreplace") for text in flat.tolist()]
            column = pa.array(texts, pa.string())
        else:
            column = pa.array(flat.tolist() if dtype.kind == "U" else flat)
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


def _width(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Bytes of a row."""
    return math.prod(shape[1:]) * dtype.itemsize


def _nested(shape: Sequence[int], dtype: np.dtype[Any]) -> pa.DataType:
    kind = pa.from_numpy_dtype(dtype) if dtype.kind not in "SU" else pa.string()
    for size in reversed(shape):
        kind = pa.list_(kind, size)
    return kind
