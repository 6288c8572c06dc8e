"""Texts and CSV columns from arguments, files and standard input."""

import csv
import math
import re
import sys
from collections.abc import Iterable, Sequence

from weir.client.errors import UsageError

_DELIMITERS = (",", ";", "\t")
# Python's float() also accepts 1_000 and the digits of other scripts.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def read_texts(arguments: Sequence[str]) -> list[str]:
    """The texts of the arguments; `-` stands for the lines of standard input but blank ones.

    Raises:
        UsageError: there is no text, or one is not UTF-8.
    """
    texts: list[str] = []
    for argument in arguments:
        if argument == "-":
            lines = read_standard_input().split("\n")
            texts += [line.removesuffix("\r") for line in lines if line.strip()]
        else:
            texts.append(_require_utf8(argument))
    if not texts:
        raise UsageError("expected a text, got none on standard input")
    return texts


def read_standard_input() -> str:
    """Standard input as UTF-8, whatever the terminal's encoding; UsageError if it is not UTF-8."""
    return decode_utf8(sys.stdin.buffer.read(), "standard input")


def decode_utf8(content: bytes, source: str) -> str:
    """A text from its bytes, without a byte order mark; UsageError names the first bad line."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{source}, line {line}: expected UTF-8, got other bytes") from error


def read_columns(
    lines: Iterable[str], source: str, selected: Sequence[str]
) -> dict[str, list[float]]:
    """Numeric columns by name, from CSV with a header line; the oldest row comes first.

    The delimiter is the comma, semicolon or tab, whichever is most frequent in the header. A column
    that mixes numbers and other cells is an error: otherwise one cell would decide what is sent.

    Args:
        lines: of the file.
        source: the file's name, for messages.
        selected: column names; if empty, every column with a number in it.

    Raises:
        UsageError: names the file, the line, the expected and the actual cell.
    """
    try:
        rows = list(_rows(list(lines)))
    except csv.Error as error:
        raise UsageError(f"{source}: expected CSV: {error}") from error
    if not rows:
        raise UsageError(f"{source}: expected a header line and rows of numbers, got nothing")
    (_, header), *rest = rows
    names = [name.strip() for name in header]
    for number, row in rest:
        if len(row) != len(names):
            raise UsageError(
                f"{source}, line {number}: expected {len(names)} cells, got {len(row)}"
            )
    chosen = selected or [
        name for index, name in enumerate(names) if any(_is_number(row[index]) for _, row in rest)
    ]
    if not chosen:
        raise UsageError(f"{source}: expected a column of numbers, got none")
    for name in chosen:
        if names.count(name) != 1:
            present = ", ".join(map(repr, names))
            raise UsageError(f"{source}: expected one column {name!r}, got {present}")
    return {
        name: [
            _number(row[names.index(name)], name, f"{source}, line {number}")
            for number, row in rest
        ]
        for name in chosen
    }


def _rows(lines: Sequence[str]) -> Iterable[tuple[int, list[str]]]:
    """The cells of each line that is not blank, with its line number."""
    header = next((line for line in lines if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    return ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text.strip())) and math.isfinite(float(text))


def _number(text: str, name: str, where: str) -> float:
    if not _is_number(text):
        raise UsageError(f"{where}, column {name!r}: expected a finite number, got {text!r}")
    return float(text)


def _require_utf8(argument: str) -> str:
    """The same argument; Python passes bytes that are not UTF-8 as lone surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"expected texts in UTF-8, got {argument!r}") from error
    return argument
