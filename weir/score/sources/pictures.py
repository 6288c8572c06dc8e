"""The pictures of a folder as a source."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from weir.score.rows import Part
from weir.score.sources.base import Columns, rows_at_a_time

FILE = "file"
PICTURE = "picture"
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass
class PicturesSource:
    """The pictures below a folder, by name."""

    folder: Path
    names: Sequence[str]
    rows: int = field(init=False)
    row_bytes: int = field(init=False)
    columns: Columns = field(init=False)

    def __post_init__(self) -> None:
        """Count the pictures."""
        self.rows = len(self.names)
        sizes = [(self.folder / name).stat().st_size for name in self.names]
        self.row_bytes = sum(sizes) // max(1, self.rows)
        self.columns = {FILE: pa.string(), PICTURE: pa.binary()}

    def identity(self) -> str:
        """A digest of names and sizes."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(f"{name}\0{(self.folder / name).stat().st_size}\n".encode())
        return digest.hexdigest()

    def read(self, columns: Columns, start: int, stop: int) -> Iterator[Part]:
        """The files, a few megabytes at a time."""
        step = rows_at_a_time(self.row_bytes)
        for at in range(start, stop, step):
            names = self.names[at : min(at + step, stop)]
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
