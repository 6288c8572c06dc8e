"""Text files as lines: UTF-8, gzipped where the name ends with `.gz`.

A line ends with a line feed, or with a carriage return and one; nothing else breaks lines, for a token may
hold U+0085 or U+2028. A byte order mark at the beginning is passed over.
"""

import gzip
import zlib
from pathlib import Path
from typing import NamedTuple

from weir.training.errors import DataError


class Line(NamedTuple):
    """One line without its end, and where it was: `FILE, line NUMBER`."""

    place: str
    text: str


def read_lines(path: Path) -> list[Line]:
    """All lines of a file.

    Raises:
        DataError: the file cannot be read, is no gzip file though named so, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        expected = "a gzip file" if path.suffix == ".gz" else "a text file"
        raise DataError(f"{path}: expected {expected}, found {error}") from error
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
        # Positions of the error are counted after the mark, as `object` is.
        before, byte = error.object[: error.start], error.object[error.start]
        number = before.count(b"\n") + 1
        raise DataError(
            f"{path}, line {number}: expected UTF-8, found the byte 0x{byte:02x}"
        ) from error
