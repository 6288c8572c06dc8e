"""Text files as lines: UTF-8, gzipped if the name ends with `.gz`.

A line ends with a line feed, or with a carriage return and a line feed. Nothing else breaks lines,
because a token may contain U+0085 or U+2028. A byte order mark at the beginning is skipped.
"""

import gzip
import zlib
from pathlib import Path
from typing import NamedTuple

from weir.training.errors import DataError


class Line(NamedTuple):
    """One line without its line end, and its place: `FILE, line NUMBER`."""

    place: str
    text: str


def read_lines(path: Path) -> list[Line]:
    """Read all lines of a file; `DataError` if it is unreadable, not UTF-8, or `.gz` not gzip."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        expected = "a gzip file" if path.suffix == ".gz" else "a text file"
        raise DataError(f"{path}: expected {expected}, got {error}") from error
    texts = _decode(path, content).split("\n")
    if not texts[-1]:
        del texts[-1]
    return [
        Line(f"{path}, line {number}", text.removesuffix("\r"))
        for number, text in enumerate(texts, 1)
    ]


def _decode(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Positions in the error count from after the byte order mark, which `object` lacks too.
        before, byte = error.object[: error.start], error.object[error.start]
        number = before.count(b"\n") + 1
        raise DataError(
            f"{path}, line {number}: expected UTF-8, got the byte 0x{byte:02x}"
        ) from error
